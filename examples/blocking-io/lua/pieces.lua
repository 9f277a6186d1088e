-- Reads files in a thread, piece by piece.

local pieces = {}

--- Yield a file in pieces of at most `size` bytes. While the client takes one, no thread is taken.
function pieces.read(path, size)
    local file = assert(io.open(path, "rb"))
    for piece in function() return file:read(size) end do
        coroutine.yield(piece)
    end
    file:close()
end

return pieces
