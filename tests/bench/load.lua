-- What wrk sends, and what it found, in one line at the end.
-- wrk … -- [METHOD BODY [FIND PATH]]
-- METHOD and BODY are sent, with a number of its own in each place of SERIAL; what the Lua pattern
-- FIND finds in the answer is deleted below PATH by the next request.

local method, body, find, path
local made, serial = {}, 0

function init(args)
   method, body, find, path = args[1], args[2], args[3], args[4]
   if find == nil or find == "" then
      response = nil
   end
end

function request()
   if method == nil then
      return wrk.format()
   end
   local id = table.remove(made)
   if id ~= nil then
      return wrk.format("DELETE", path .. id)
   end
   serial = serial + 1
   return wrk.format(method, nil, nil, (string.gsub(body, "SERIAL", os.time() .. "-" .. serial)))
end

function response(status, headers, text)
   if status == 201 then
      table.insert(made, string.match(text, find))
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      "\nfound %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
      latency:percentile(50), latency:percentile(99), errors.status,
      errors.connect + errors.read + errors.write, errors.timeout))
end
