-- The server's side of a WebSocket (RFC 6455), over the connection that ngx.req.socket(true) hands out.
--
-- Short on purpose: text messages, no extensions. lua-resty-websocket has the rest and runs here as it is.

local bit = require "bit"

local band, bor, bxor, lshift = bit.band, bit.bor, bit.bxor, bit.lshift
local byte, char, concat = string.byte, string.char, table.concat

local TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
local MAX_SIZE = 65536
-- A client that has said nothing for so long (milliseconds) is asked whether it is still there.
local SILENCE = 30000

local M = {}

local Socket = {}
Socket.__index = Socket

--- Make the client's request a WebSocket; nil and the reason if it is not meant to become one.
function M.accept()
    local headers = ngx.req.get_headers()
    local key = headers["Sec-WebSocket-Key"]
    if not key or (headers.Upgrade or ""):lower() ~= "websocket" then
        return nil, "the request does not ask for it"
    elseif headers["Sec-WebSocket-Version"] ~= "13" then
        return nil, "not version 13"
    end
    local accept = ngx.encode_base64(ngx.sha1_bin(key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
    ngx.status = 101
    ngx.header.Upgrade = "websocket"
    ngx.header.Connection = "Upgrade"
    ngx.header["Sec-WebSocket-Accept"] = accept
    ngx.send_headers()
    ngx.flush(true)
    local sock = assert(ngx.req.socket(true))
    sock:settimeouts(0, 10000, SILENCE)
    return setmetatable({ sock = sock }, Socket)
end

local function send_frame(self, kind, data)
    local size = #data
    local length
    if size < 126 then
        length = char(size)
    elseif size < 65536 then
        length = char(126, size / 256, size % 256)
    else
        return nil, "too long"
    end
    return self.sock:send(char(bor(0x80, kind)) .. length .. data)
end

local function unmask(data, mask)
    local key = { byte(mask, 1, 4) }
    local bytes = {}
    for i = 1, #data do
        bytes[i] = char(bxor(byte(data, i), key[(i - 1) % 4 + 1]))
    end
    return concat(bytes)
end

-- The next frame: kind, data, whether the message ends with it; nil and a reason.
local function read_frame(self)
    local sock = self.sock
    local head, err = sock:receive(2)
    if err == "timeout" then
        send_frame(self, PING, "")
        head, err = sock:receive(2)
    end
    if not head then
        return nil, err
    end
    local first, second = byte(head, 1, 2)
    local size = band(second, 0x7f)
    if band(second, 0x80) == 0 then
        return nil, "a client's frames are masked"
    elseif size == 126 then
        local high, low = byte(assert(sock:receive(2)), 1, 2)
        size = bor(lshift(high, 8), low)
    end
    if size > MAX_SIZE or size == 127 then
        return nil, "too long"
    end
    local mask = sock:receive(4)
    local data = mask and (size == 0 and "" or sock:receive(size))
    if not data then
        return nil, "closed"
    end
    return band(first, 0x0f), unmask(data, mask), band(first, 0x80) ~= 0
end

--- Send a text.
function Socket:send(text)
    return send_frame(self, TEXT, text)
end

--- An iterator over the texts that the client sends; it ends with the connection.
function Socket:messages()
    return function()
        local parts, size = {}, 0
        while true do
            local kind, data, last = read_frame(self)
            if not kind then
                return nil
            elseif kind == CLOSE then
                send_frame(self, CLOSE, data)
                return nil
            elseif kind == PING then
                send_frame(self, PONG, data)
            elseif kind ~= PONG then
                size = size + #data
                if size > MAX_SIZE then
                    return nil
                end
                parts[#parts + 1] = data
                if last then
                    return concat(parts)
                end
            end
        end
    end
end

return M
