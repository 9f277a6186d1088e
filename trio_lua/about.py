"""Which nginx this server stands for, told in the same words wherever somebody asks.

It imports nothing else: ``trio-lua-nginx -V`` has to answer at once.
"""

from __future__ import annotations

from trio_lua import __version__

__all__ = ["CONFIGURE", "NGINX_VERSION"]

#: The nginx whose behaviour, log format and configuration this server follows.
NGINX_VERSION = "1.22.1"

#: Words that callers look for: which optional modules there are decides what they write
#: into a configuration.
CONFIGURE = (
    " --conf-path=conf/nginx.conf --error-log-path=logs/error.log --pid-path=logs/nginx.pid "
    "--with-threads --with-pcre --with-pcre-jit --with-debug "
    "--without-http_fastcgi_module --without-http_scgi_module --without-http_uwsgi_module "
    "--without-http_grpc_module --without-mail_pop3_module --without-mail_imap_module "
    "--without-mail_smtp_module "
    f"--add-module=trio_lua-{__version__}"
)
