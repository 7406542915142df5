-- wrk script: the same POST on every connection, and one line of JSON at the end.
--   wrk ... -s post.lua URL -- BODY_FILE HEADERS_FILE [KEYS_FILE]
-- HEADERS_FILE holds one "Name: value" a line. With KEYS_FILE (one key a line) the requests take the keys in turn.

local requests, at = {}, 0

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(args)
  local body, headers = read(args[1]), {}
  for name, value in read(args[2]):gmatch("([^:\n]+): ([^\n]*)") do headers[name] = value end
  if not args[3] then
    requests[1] = wrk.format("POST", nil, headers, body)
    return
  end
  for key in read(args[3]):gmatch("[^\n]+") do
    headers["Authorization"] = "Bearer " .. key
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "bad_status": %d, "socket_errors": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
