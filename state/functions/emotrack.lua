#!lua name=emotrack_v4
-- Compare-and-append of one conversation's state, the fence token of a partition, and the note of a
-- conversation's partition.
-- The keys and what they hold: docstring of state/redis_store.py. The same decisions in Python, for
-- the memory store: state/memory_store.py; one contract suite runs on both.
-- Redis >= 7. Touches only the keys it is given, which share a hash tag: runs in a cluster.

local SAVED, REPLAY, FENCED, LOST = 0, 1, 2, 3
local CLEAR_STATE, CLEAR_IDS, REPLACE, RESTORE = 1, 2, 4, 8
local KNOWN_BYTES = 16
local FIELDS_AT_ONCE = 64 -- Lua unpacks only so many values
local LATEST_US = 2 ^ 52 -- in 2112; a clock beyond it would take tokens to where + 1 is lost

-- A decimal as written below; anything else counts as missing. Doubles are exact to 16 digits.
local function stored_int(value, missing)
  local digits = value and string.match(value, '^%-?(%d+)$')
  if not digits or #digits > 16 then return missing end
  return tonumber(value)
end

-- tostring() would write 1.8e+15
local function decimal(number)
  return string.format('%.0f', number)
end

-- KEYS: rows, hash, ids, outputs.
-- ARGV 1: token, expected, offset, committed (f64), ttl in ms (f64), window, horizon, number of
--         rows, of fields, of forgotten fields (u32), flags (u8), big endian;
--      2: digest, 3: output, 4: known utterances; then the rows, field and value pairs, forgotten fields.
-- RESTORE puts back a state rebuilt from the log: whole, without an output of its own, and at any
-- position, since what is stored may be older or another model's.
-- Returns {result, stored token, stored offset}.
local function save(keys, args)
  local rows, hash, ids, outputs = keys[1], keys[2], keys[3], keys[4]
  local token, expected, offset, committed, ttl, window, horizon, n_rows, n_fields, n_forgotten,
    flags = struct.unpack('>dddddI4I4I4I4I4B', args[1])
  local digest = args[2]

  -- pcall: where the key is no hash, the error has no fields either, and counts as missing
  local held = redis.pcall('HMGET', hash, 't', 'o', 'd')
  local stored_token, stored = stored_int(held[1], 0), stored_int(held[2], -1)
  if token < stored_token then return {FENCED, stored_token, stored} end
  local restore = bit.band(flags, RESTORE) ~= 0
  if stored >= offset and not restore then return {REPLAY, stored_token, stored} end
  local replace = restore or bit.band(flags, REPLACE) ~= 0
  local foreign = stored ~= -1 and held[3] ~= digest
  if stored ~= expected or (foreign and not replace) then
    return {LOST, stored_token, stored}
  end

  if bit.band(flags, CLEAR_STATE) ~= 0 then redis.call('DEL', rows, hash) end
  if bit.band(flags, CLEAR_IDS) ~= 0 then redis.call('DEL', ids) end
  if expected == -1 or replace then -- what is left of a damaged or half expired state
    local kind = redis.call('TYPE', outputs).ok
    if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', outputs) end
    -- A position that is to be applied has no output yet; a restored one keeps its own.
    redis.call('ZREMRANGEBYSCORE', outputs, (restore and '(' or '') .. decimal(offset), '+inf')
  end

  -- Each call costs about as much as copying 2 KB: none is made that does nothing.
  local at, length = 4, 0
  for i = at + 1, at + n_rows do length = redis.call('RPUSH', rows, args[i]) end
  if length > window then redis.call('LTRIM', rows, -window, -1) end
  at = at + n_rows
  redis.call('HSET', hash, 't', decimal(token), 'o', decimal(offset), 'd', digest,
    unpack(args, at + 1, at + 2 * math.min(n_fields, FIELDS_AT_ONCE)))
  for i = at + 2 * FIELDS_AT_ONCE + 1, at + 2 * n_fields, 2 do
    redis.call('HSET', hash, args[i], args[i + 1])
  end
  at = at + 2 * n_fields
  for i = at + 1, at + n_forgotten do redis.call('HDEL', hash, args[i]) end
  length = 0
  for i = 1, #args[4], KNOWN_BYTES do
    length = redis.call('RPUSH', ids, string.sub(args[4], i, i + KNOWN_BYTES - 1))
  end
  if length > horizon then redis.call('LTRIM', ids, -horizon, -1) end
  if not restore then redis.call('ZADD', outputs, decimal(offset), args[3]) end
  redis.call('ZREMRANGEBYSCORE', outputs, '-inf', '(' .. decimal(committed))
  for i = 1, 4 do redis.call('PEXPIRE', keys[i], decimal(ttl)) end
  return {SAVED, token, offset}
end

-- KEYS: fence. ARGV: at least. Returns a token greater than any returned before, exact in a double.
-- It goes by the time, so that it cannot go back where the stored one is lost with all states. It
-- has no life of its own: states written under it would outlive it, and fence their owner once the
-- server's clock is set back.
local function claim(keys, args)
  local time = redis.call('TIME')
  local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local held = redis.pcall('GET', keys[1])
  local stored = stored_int(type(held) == 'string' and held, 0)
  local token = math.max(stored + 1, tonumber(args[1]), math.min(now_us, LATEST_US))
  redis.call('SET', keys[1], decimal(token))
  return token
end

-- KEYS: the partitions that a conversation was noted on. ARGV: a partition, ttl, age (ms).
-- Returns {1 where it was not noted on this one, 1 where the last note is older than `age`, all of
-- its partitions}; another program's key has no partition, since a note is only a hint.
local function note(keys, args)
  local new = redis.pcall('SADD', keys[1], args[1])
  if type(new) == 'table' then
    return string.find(new.err, '^WRONGTYPE') and {0, 0, {}} or new
  end
  local ttl, age = tonumber(args[2]), tonumber(args[3])
  -- GT: only where the new life is greater than what is left of the old one
  local old = redis.call('PEXPIRE', keys[1], decimal(ttl - age), 'GT')
  redis.call('PEXPIRE', keys[1], decimal(ttl))
  return {new, old, redis.call('SMEMBERS', keys[1])}
end

redis.register_function('emotrack_v4_save', save)
redis.register_function('emotrack_v4_claim', claim)
redis.register_function('emotrack_v4_note', note)
