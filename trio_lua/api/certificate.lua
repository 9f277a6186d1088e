-- Certificates and private keys as OpenSSL's own objects: what ngx.ssl hands out, and tcpsock:setclientcert takes.
--
-- They are made with the libcrypto that Python's ssl module uses, so that libraries which call it through FFI can look
-- into them; Python gets them as PEM. The functions have names of their own here: whoever declares OpenSSL's with its
-- types must not find these declarations.

local rt = ...

local ffi = require "ffi"

local C, gc, new, text_of = ffi.C, ffi.gc, ffi.new, ffi.string
local pcall, tonumber = pcall, tonumber

ffi.cdef [[
void *trio_lua_bio_of(const char *data, int size) __asm__("BIO_new_mem_buf");
const void *trio_lua_bio_memory(void) __asm__("BIO_s_mem");
void *trio_lua_bio_new(const void *method) __asm__("BIO_new");
long trio_lua_bio_ctrl(void *bio, int command, long number, void *pointer) __asm__("BIO_ctrl");
int trio_lua_bio_free(void *bio) __asm__("BIO_free");
unsigned long trio_lua_last_error(void) __asm__("ERR_peek_last_error");
void trio_lua_clear_errors(void) __asm__("ERR_clear_error");
void *trio_lua_stack_new(void) __asm__("OPENSSL_sk_new_null");
int trio_lua_stack_push(void *stack, void *item) __asm__("OPENSSL_sk_push");
int trio_lua_stack_size(const void *stack) __asm__("OPENSSL_sk_num");
void *trio_lua_stack_item(const void *stack, int index) __asm__("OPENSSL_sk_value");
void trio_lua_stack_free(void *stack, void (*free_item)(void *)) __asm__("OPENSSL_sk_pop_free");
void trio_lua_x509_free(void *x509) __asm__("X509_free");
void *trio_lua_x509_of_trusted_pem(void *bio, void *into, void *ask, const char *word) __asm__("PEM_read_bio_X509_AUX");
void *trio_lua_x509_of_pem(void *bio, void *into, void *ask, const char *word) __asm__("PEM_read_bio_X509");
void *trio_lua_x509_of_der(void *bio, void *into) __asm__("d2i_X509_bio");
int trio_lua_x509_to_pem(void *bio, const void *x509) __asm__("PEM_write_bio_X509");
void trio_lua_key_free(void *key) __asm__("EVP_PKEY_free");
void *trio_lua_key_of_pem(void *bio, void *into, void *ask, const char *word) __asm__("PEM_read_bio_PrivateKey");
void *trio_lua_key_of_der(void *bio, void *into) __asm__("d2i_PrivateKey_bio");
int trio_lua_key_to_pem(void *bio, const void *key, const void *cipher, const char *word, int size, void *ask,
                        void *argument) __asm__("PEM_write_bio_PrivateKey");
int trio_lua_key_to_der(void *bio, const void *key) __asm__("i2d_PrivateKey_bio");
]]

local NO_START_LINE = 108
local BIO_INFO, BIO_EOF = 3, 2

local is_there = pcall(function() return C.trio_lua_bio_of end)

-- What read(bio) makes of a text; its errors are no others' business.
local function parsed(text, read)
    if not is_there then
        return nil, "no libcrypto"
    end
    local bio = C.trio_lua_bio_of(text, #text)
    local object, err = read(bio)
    C.trio_lua_bio_free(bio)
    C.trio_lua_clear_errors()
    return object, err
end

-- What write(bio) leaves there; nil when it fails.
local function written(write)
    local bio = C.trio_lua_bio_new(C.trio_lua_bio_memory())
    local ok = write(bio)
    local data = new("char *[1]")
    local size = C.trio_lua_bio_ctrl(bio, BIO_INFO, 0, data)
    local text = ok and size > 0 and text_of(data[0], size) or nil
    C.trio_lua_bio_free(bio)
    C.trio_lua_clear_errors()
    return text
end

local function free_chain(chain)
    C.trio_lua_stack_free(chain, C.trio_lua_x509_free)
end

local function new_chain()
    return gc(C.trio_lua_stack_new(), free_chain)
end

local function chain_of_pem(bio)
    local x509 = C.trio_lua_x509_of_trusted_pem(bio, nil, nil, "")
    if x509 == nil then
        return nil, "PEM_read_bio_X509_AUX() failed"
    end
    local chain = new_chain()
    while x509 ~= nil do
        C.trio_lua_stack_push(chain, x509)
        x509 = C.trio_lua_x509_of_pem(bio, nil, nil, "")
    end
    if tonumber(C.trio_lua_last_error()) % 0x1000 ~= NO_START_LINE then
        return nil, "PEM_read_bio_X509() failed"
    end
    return chain
end

local function chain_of_der(bio)
    local chain = new_chain()
    repeat
        local x509 = C.trio_lua_x509_of_der(bio, nil)
        if x509 == nil then
            return nil, "d2i_X509_bio() failed"
        end
        C.trio_lua_stack_push(chain, x509)
    until C.trio_lua_bio_ctrl(bio, BIO_EOF, 0, nil) == 1
    return chain
end

local certificate = {}

--- What this file offers to the others.
rt.certificate = certificate

--- A certificate with its chain; nil and an error.
function certificate.of_pem(pem)
    return parsed(pem, chain_of_pem)
end

--- The same from DER.
function certificate.of_der(der)
    return parsed(der, chain_of_der)
end

local function kept(key, failure)
    if key == nil then
        return nil, failure
    end
    return gc(key, C.trio_lua_key_free)
end

--- A private key; nil and an error. Without a passphrase for one that is encrypted nobody is asked for it.
function certificate.key_of_pem(pem, passphrase)
    return parsed(pem, function(bio)
        return kept(C.trio_lua_key_of_pem(bio, nil, nil, passphrase or ""), "PEM_read_bio_PrivateKey() failed")
    end)
end

--- The same from DER.
function certificate.key_of_der(der)
    return parsed(der, function(bio)
        return kept(C.trio_lua_key_of_der(bio, nil), "d2i_PrivateKey_bio() failed")
    end)
end

--- A chain (STACK_OF(X509) *) as PEM; nil when it has no certificate.
function certificate.to_pem(chain)
    return written(function(bio)
        for i = 0, C.trio_lua_stack_size(chain) - 1 do
            if C.trio_lua_x509_to_pem(bio, C.trio_lua_stack_item(chain, i)) ~= 1 then
                return false
            end
        end
        return true
    end)
end

--- A key (EVP_PKEY *) as PEM; nil when it has none that is private.
function certificate.key_to_pem(key)
    return written(function(bio)
        return C.trio_lua_key_to_pem(bio, key, nil, nil, 0, nil, nil) == 1
    end)
end

--- The same as DER, in the key's own format.
function certificate.key_to_der(key)
    return written(function(bio)
        return C.trio_lua_key_to_der(bio, key) == 1
    end)
end
