-- Nobody but GET, for now.
return function(request)
    if request.method ~= "GET" then
        return 405
    end
end
