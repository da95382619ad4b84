"""The playground: `thalweg play`, a local page on which every rule can be watched.

    serve(port=8700)

`question` checks what is asked, `answers` and `facts` answer, `workers` keeps an answer from taking for ever,
`server` carries it all over HTTP; the files of `page` ask and draw.
"""

from thalweg.play.server import application, serve

__all__ = ["application", "serve"]
