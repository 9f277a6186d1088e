-- ngx.config: what this server is.

local rt = ...

local ngx = rt.ngx

rawset(ngx, "config", {
    subsystem = "http",
    debug = true,
    nginx_version = rt.nginx_version_number,
    ngx_lua_version = rt.ngx_lua_version,
    prefix = function()
        return rt.prefix
    end,
    nginx_configure = function()
        return rt.configure_arguments
    end,
})
