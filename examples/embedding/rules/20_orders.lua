return function(request)
    local id = request.path:match("^/orders/(%d+)$")
    if id then
        return "order", { id = tonumber(id) }
    end
    if request.path == "/orders" and request.args.q then
        return "search", { text = request.args.q }
    end
end
