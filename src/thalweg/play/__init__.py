"""The playground: `thalweg play`, a local page on which every rule can be watched.

    serve(port=8700)

`api` answers questions, `server` carries them over HTTP, `page` asks them and draws the answers.
"""

from thalweg.play.server import application, serve

__all__ = ["application", "serve"]
