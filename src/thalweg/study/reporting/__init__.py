"""What a study found, in sentences, tables, pictures and files."""
