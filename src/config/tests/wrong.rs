//! A table of mistakes, one line a case.

use std::fmt::Write;

use super::*;

/// `what it is added to ¦ text (⏎ ends a line) ¦ line:column ¦ key ¦ words of the message`. What is added to `base` begins
/// at line 7, in its route; what is added to `account` at line 10, in its account; `whole` is added to nothing.
const TABLE: &str = r#"
# The file as a whole.
whole ¦ a =  ¦ 1:5 ¦  ¦ not TOML
whole ¦ [server ⏎  ¦ 1:8 ¦  ¦ not TOML
whole ¦ [server] ⏎ listen = 5s ¦ 2:10 ¦  ¦ not TOML
base ¦ [server] ⏎ [server] ¦ 8:2 ¦  ¦ duplicate key
base ¦ [server] ⏎ listen = "a" ⏎ listen = "b" ¦ 9:1 ¦  ¦ duplicate key
base ¦ [servr] ¦ 7:2 ¦ servr ¦ is not a key; expected one of admin, cache, clients, log, routes, server, state, upstreams (did you mean `server`?)
base ¦ server = 5 ¦ 7:1 ¦ routes[r].server ¦ is not a key
base ¦ [server] ⏎ lisen = "127.0.0.1:1" ¦ 8:1 ¦ server.lisen ¦ (did you mean `listen`?)
base ¦ [state] ⏎ dir = "" ¦ 8:7 ¦ state.dir ¦ is empty
account ¦ quota = [{ requests = 10, per = "day" }] ¦ 1:1 ¦ the quota of account `a` ¦ is counted by the day and would be forgotten by a restart; expected [state] dir, a directory to write it down in
whole ¦ server = 5 ⏎ [[routes]] ⏎ name = "r" ⏎ path = "/r" ⏎ upstream = "u" ⏎ [upstreams.u] ⏎ url = "http://h" ¦ 1:10 ¦ server ¦ is an integer; expected a table
base ¦ [[server]] ¦ 7:1 ¦ server ¦ is a list; expected a table

# [server], [admin], [log], [cache].
base ¦ [server] ⏎ listen = "localhost" ¦ 8:10 ¦ server.listen ¦ "localhost" is no address; expected an IP address and a port
base ¦ [server] ⏎ listen = "0.0.0.0:8080" ¦ 8:10 ¦ server.listen ¦ allow_anonymous = true
base ¦ [server] ⏎ listen = "[::]:8080" ¦ 8:10 ¦ server.listen ¦ [clients.NAME]
base ¦ [server] ⏎ allow_anonymous = "yes" ¦ 8:19 ¦ server.allow_anonymous ¦ is a string; expected true or false
base ¦ [server] ⏎ header_timeout = 30 ¦ 8:18 ¦ server.header_timeout ¦ is an integer; expected a duration with its unit, such as "30s"
base ¦ [server] ⏎ header_timeout = "30" ¦ 8:18 ¦ server.header_timeout ¦ "30" is no duration
base ¦ [server] ⏎ header_timeout = "30 sec" ¦ 8:18 ¦ server.header_timeout ¦ is no duration
base ¦ [server] ⏎ header_timeout = "-1s" ¦ 8:18 ¦ server.header_timeout ¦ is no duration
base ¦ [server] ⏎ header_timeout = "0s" ¦ 8:18 ¦ server.header_timeout ¦ is zero
base ¦ [server] ⏎ idle_timeout = "99999999999999999999s" ¦ 8:16 ¦ server.idle_timeout ¦ is no duration
base ¦ [server] ⏎ idle_timeout = "400d" ¦ 8:16 ¦ server.idle_timeout ¦ longer than a year
base ¦ [server] ⏎ max_body_bytes = 1024 ¦ 8:18 ¦ server.max_body_bytes ¦ expected a size with its unit, such as "256MiB"
base ¦ [server] ⏎ max_body_bytes = "1 megabyte" ¦ 8:18 ¦ server.max_body_bytes ¦ is no size
base ¦ [server] ⏎ max_head_bytes = "1KiB" ¦ 8:18 ¦ server.max_head_bytes ¦ from "8KiB" to "1MiB"
base ¦ [server] ⏎ max_headers = 0 ¦ 8:15 ¦ server.max_headers ¦ from 1 to 10000
base ¦ [server] ⏎ max_connections = 0 ¦ 8:19 ¦ server.max_connections ¦ 0 is out of bounds
base ¦ [server] ⏎ drain_delay = "30s" ¦ 8:15 ¦ server.drain_delay ¦ leaves nothing of `drain_timeout`
base ¦ [server] ⏎ rate_limit = { requests = 0, per = "1s" } ¦ 8:27 ¦ server.rate_limit.requests ¦ 0 is out of bounds
base ¦ [server] ⏎ rate_limit = { requests = 1, per = "0s" } ¦ 8:36 ¦ server.rate_limit.per ¦ is zero
base ¦ [server] ⏎ rate_limit = { per = "1s" } ¦ 8:14 ¦ server.rate_limit.requests ¦ is missing
base ¦ [server] ⏎ rate_limit = { requests = 9000000, per = "1ms" } ¦ 8:14 ¦ server.rate_limit ¦ nanosecond
base ¦ [server] ⏎ rate_limit = { requests = 1, per = "1s", shadow = 1 } ¦ 8:51 ¦ server.rate_limit.shadow ¦ is an integer; expected true or false
base ¦ [admin] ⏎ listen = "0.0.0.0:9090" ¦ 8:10 ¦ admin.listen ¦ expected `token`
base ¦ [admin] ⏎ listen = "127.0.0.1:8080" ¦ 8:10 ¦ admin.listen ¦ is the address of [server] too
base ¦ [log] ⏎ format = "jsn" ¦ 8:10 ¦ log.format ¦ expected "pretty" or "json" (did you mean `json`?)
base ¦ [log] ⏎ level = "inof" ¦ 8:9 ¦ log.level ¦ "inof" is no level
base ¦ [log] ⏎ level = "tollgate=loud" ¦ 8:9 ¦ log.level ¦ is no level
base ¦ [cache] ⏎ max_bytes = "0B" ¦ 8:13 ¦ cache.max_bytes ¦ out of bounds
base ¦ [cache] ⏎ max_bytes = "1MiB" ⏎ max_entry_bytes = "2MiB" ¦ 9:19 ¦ cache.max_entry_bytes ¦ to "1MiB"

# [upstreams.NAME] and their accounts.
base ¦ [upstreams.x] ¦ 7:1 ¦ upstreams.x.url ¦ is missing; expected a URL
base ¦ [upstreams."a b"] ⏎ url = "http://h" ¦ 7:1 ¦ upstreams."a b" ¦ is no name
base ¦ [upstreams.x] ⏎ url = "api.example.com" ¦ 8:7 ¦ upstreams.x.url ¦ does not begin with http:// or https://
base ¦ [upstreams.x] ⏎ url = "ftp://h" ¦ 8:7 ¦ upstreams.x.url ¦ does not begin with http
base ¦ [upstreams.x] ⏎ url = "https://" ¦ 8:7 ¦ upstreams.x.url ¦ is no URL
base ¦ [upstreams.x] ⏎ url = "https://me:hunter2@h/" ¦ 8:7 ¦ upstreams.x.url ¦ has an `@`
base ¦ [upstreams.x] ⏎ url = "https://h/?key=hunter2" ¦ 8:7 ¦ upstreams.x.url ¦ has a query
base ¦ [upstreams.x] ⏎ url = "https://h/#a" ¦ 8:7 ¦ upstreams.x.url ¦ has a fragment
base ¦ [upstreams.x] ⏎ url = "https://h:99999" ¦ 8:7 ¦ upstreams.x.url ¦ port
base ¦ [upstreams.x] ⏎ url = "https://-h-/" ¦ 8:7 ¦ upstreams.x.url ¦ host
base ¦ [upstreams.x] ⏎ url = "https://h" ⏎ max_concurrent = 0 ¦ 9:18 ¦ upstreams.x.max_concurrent ¦ 0 is out of bounds
base ¦ [upstreams.x] ⏎ url = "https://h" ⏎ tls.ca = "gone.pem" ¦ 9:10 ¦ upstreams.x.tls.ca ¦ `gone.pem` cannot be read
base ¦ [upstreams.x] ⏎ url = "https://h" ⏎ tls.ca = "no.pem" ¦ 9:10 ¦ upstreams.x.tls.ca ¦ holds no certificate
base ¦ [upstreams.x] ⏎ url = "https://h" ⏎ tls.ca = "odd.pem" ¦ 9:10 ¦ upstreams.x.tls.ca ¦ cannot be used
base ¦ [upstreams.x] ⏎ url = "http://h" ⏎ tls.ca = "ca.pem" ¦ 9:10 ¦ upstreams.x.tls.ca ¦ of no use to an http upstream
base ¦ [upstreams.x] ⏎ url = "https://h" ⏎ same_data = 1 ¦ 9:13 ¦ upstreams.x.same_data ¦ is an integer; expected true or false
account ¦  ¦ 8:1 ¦ upstreams.u.accounts.a.quota ¦ is missing; expected your contract: quota = 
account ¦ quota = "non" ¦ 10:9 ¦ upstreams.u.accounts.a.quota ¦ (did you mean `none`?)
account ¦ quota = [] ¦ 10:9 ¦ upstreams.u.accounts.a.quota ¦ is an empty list
account ¦ quota = [{ requests = 10 }] ¦ 10:10 ¦ upstreams.u.accounts.a.quota[1].per ¦ is missing
account ¦ quota = [{ requests = 1, per = "1h", reserve = "95%" }] ¦ 10:48 ¦ upstreams.u.accounts.a.quota[1].reserve ¦ "95%" is no share
account ¦ quota = [{ requests = 1, per = "1h", resets = "00:00 UTC" }] ¦ 10:47 ¦ upstreams.u.accounts.a.quota[1].resets ¦ is for calendar periods
account ¦ quota = [{ requests = 1, per = "day", resets = "00:00 Paris" }] ¦ 10:48 ¦ upstreams.u.accounts.a.quota[1].resets ¦ "Paris" is no time zone
account ¦ quota = [{ requests = 1, per = "day", resets = "25:00 UTC" }] ¦ 10:48 ¦ upstreams.u.accounts.a.quota[1].resets ¦ "25:00" is no time of day
account ¦ quota = [{ requests = 1, per = "day", resets = "00:00" }] ¦ 10:48 ¦ upstreams.u.accounts.a.quota[1].resets ¦ names no zone
account ¦ quota = [{ requests = 1, per = "1h", margin = "1s" }] ¦ 10:47 ¦ upstreams.u.accounts.a.quota[1].margin ¦ is for slots that are held from the sending
account ¦ quota = [{ requests = 1, per = "1h" }, { requests = 2, per = "1h" }] ¦ 10:9 ¦ upstreams.u.accounts.a.quota ¦ has two windows of 3600s
account ¦ quota = "none" ⏎ price = -1 ¦ 11:9 ¦ upstreams.u.accounts.a.price ¦ is below zero
account ¦ quota = "none" ⏎ headers.X-Key = "hunter2" ¦ 11:17 ¦ upstreams.u.accounts.a.headers.X-Key ¦ same header twice
account ¦ quota = "none" ⏎ headers.host = "hunter2" ¦ 11:16 ¦ upstreams.u.accounts.a.headers.host ¦ written by the gate itself
account ¦ quota = "none" ⏎ headers."a b" = "hunter2" ¦ 11:17 ¦ upstreams.u.accounts.a.headers."a b" ¦ is no header name
account ¦ quota = "none" ⏎ headers.y = { env = "NOPE" } ¦ 11:21 ¦ upstreams.u.accounts.a.headers.y.env ¦ environment variable `NOPE` is not set; expected `NOPE` in the environment
account ¦ quota = "none" ⏎ headers.y = { env = "EMPTY" } ¦ 11:21 ¦ upstreams.u.accounts.a.headers.y.env ¦ is empty
account ¦ quota = "none" ⏎ headers.y = { env = "BROKEN" } ¦ 11:21 ¦ upstreams.u.accounts.a.headers.y.env ¦ line break
account ¦ quota = "none" ⏎ headers.y = { env = "hunter2-!" } ¦ 11:21 ¦ upstreams.u.accounts.a.headers.y.env ¦ is no name of an environment variable
account ¦ quota = "none" ⏎ headers.y = { file = "gone" } ¦ 11:22 ¦ upstreams.u.accounts.a.headers.y.file ¦ file `gone` cannot be read
account ¦ quota = "none" ⏎ headers.y = { file = "two-lines" } ¦ 11:22 ¦ upstreams.u.accounts.a.headers.y.file ¦ line break
account ¦ quota = "none" ⏎ headers.y = {} ¦ 11:13 ¦ upstreams.u.accounts.a.headers.y ¦ names no source; expected { env = "NAME" }
account ¦ quota = "none" ⏎ headers.y = { env = "KEY", file = "secret" } ¦ 11:13 ¦ upstreams.u.accounts.a.headers.y ¦ names two sources
account ¦ quota = "none" ⏎ headers.y = { evn = "KEY", env = "KEY" } ¦ 11:15 ¦ upstreams.u.accounts.a.headers.y.evn ¦ (did you mean `env`?)
account ¦ quota = "none" ⏎ headers.y = 5 ¦ 11:13 ¦ upstreams.u.accounts.a.headers.y ¦ is an integer; expected { env
account ¦ quota = "none" ⏎ headers.y = "" ¦ 11:13 ¦ upstreams.u.accounts.a.headers.y ¦ is empty

# [clients.NAME].
base ¦ [clients.c] ¦ 7:1 ¦ clients.c.key ¦ is missing; expected key = { env
base ¦ [clients.anonymous] ⏎ key = { env = "KEY" } ¦ 7:1 ¦ clients.anonymous ¦ callers without a key
base ¦ [clients.c] ⏎ key = { env = "SPACED" } ¦ 8:15 ¦ clients.c.key.env ¦ visible ASCII
base ¦ [clients.c] ⏎ key = { env = "KEY" } ⏎ [clients.d] ⏎ key = { env = "SAME" } ¦ 10:7 ¦ clients.d.key ¦ is the key of client `c` too
base ¦ [clients.c] ⏎ key = { env = "KEY" } ⏎ routes = ["r", "R2"] ¦ 9:16 ¦ clients.c.routes[2] ¦ route "R2" does not exist
base ¦ [clients.c] ⏎ key = { env = "KEY" } ⏎ budget = { requests = 0, per = "day" } ¦ 9:23 ¦ clients.c.budget.requests ¦ 0 is out of bounds
base ¦ [clients.c] ⏎ key = { env = "KEY" } ⏎ priority = "high" ¦ 9:12 ¦ clients.c.priority ¦ "interactive" or "batch"
base ¦ [clients.c] ⏎ key = { env = "KEY" } ⏎ weight = 0 ¦ 9:10 ¦ clients.c.weight ¦ from 1 to 1000

# [[routes]].
whole ¦  ¦ 1:1 ¦ routes ¦ is missing
whole ¦ [[routes]] ⏎ name = "r" ⏎ path = "/" ¦ 1:1 ¦ routes[r].upstream ¦ is missing
base ¦ [[routes]] ⏎ path = "/b" ⏎ upstream = "u" ¦ 7:1 ¦ routes[2].name ¦ is missing
base ¦ [[routes]] ⏎ name = "r" ⏎ path = "/b" ⏎ upstream = "u" ¦ 8:8 ¦ routes[2].name ¦ "r" is declared already
base ¦ [[routes]] ⏎ name = "r2" ⏎ upstream = "u" ⏎ path = "/r" ¦ 10:8 ¦ routes[r2].path ¦ is the path of route `r` too
base ¦ [[routes]] ⏎ name = "r2" ⏎ upstream = "u" ⏎ path = "r2" ¦ 10:8 ¦ routes[r2].path ¦ is no path
base ¦ [[routes]] ⏎ name = "r2" ⏎ upstream = "u" ⏎ path = "/-/x" ¦ 10:8 ¦ routes[r2].path ¦ not under /-/
base ¦ [[routes]] ⏎ name = "b" ⏎ path = "/b" ⏎ upstream = "v" ¦ 10:12 ¦ routes[b].upstream ¦ upstream "v" does not exist
base ¦ account = "a" ¦ 7:11 ¦ routes[r].account ¦ account "a" does not exist
base ¦ account = "a" ⏎ [upstreams.v] ⏎ url = "https://h" ⏎ accounts.a.quota = "none" ¦ 7:11 ¦ routes[r].account ¦ belongs to upstream `v`
base ¦ [upstreams.u.accounts.a] ⏎ quota = "none" ⏎ [upstreams.u.accounts.b] ⏎ quota = "none" ¦ 3:1 ¦ routes[r].account ¦ is missing; expected one of a, b
base ¦ upstream_path = "x" ¦ 7:17 ¦ routes[r].upstream_path ¦ cannot be put in place of `/r`
base ¦ upstream_path = "/x/*" ¦ 7:17 ¦ routes[r].upstream_path ¦ cannot be put in place
base ¦ methods = ["get"] ¦ 7:12 ¦ routes[r].methods[1] ¦ (did you mean `GET`?)
base ¦ methods = ["TRACE"] ¦ 7:12 ¦ routes[r].methods[1] ¦ TRACE cannot be forwarded
base ¦ methods = [] ¦ 7:11 ¦ routes[r].methods ¦ is an empty list
base ¦ methods = "GET" ¦ 7:11 ¦ routes[r].methods ¦ neither a list nor "all"
base ¦ forward_headers = ["accept", "connection"] ¦ 7:30 ¦ routes[r].forward_headers[2] ¦ ends at it
base ¦ forward_headers = ["X-KEY"] ⏎ [upstreams.u.accounts.a] ⏎ headers.x-key = "hunter2" ⏎ quota = "none" ¦ 7:20 ¦ routes[r].forward_headers[1] ¦ is a credential
base ¦ params.p = "email" ⏎ [upstreams.u.accounts.a] ⏎ headers.x-key = "hunter2" ⏎ quota = "none" ⏎ query.p = "hunter2" ¦ 3:1 ¦ routes[r] ¦ declares `p`, which is a credential of account `a`
base ¦ unknown = "pass" ¦ 7:11 ¦ routes[r].unknown ¦ expected [routes.params]
base ¦ unknown = "keep" ⏎ params.a = "email" ¦ 7:11 ¦ routes[r].unknown ¦ expected "drop" or "pass"
base ¦ cache.ttl = 30 ¦ 7:13 ¦ routes[r].cache.ttl ¦ is an integer; expected a duration
base ¦ cache.ttl_overrides = ["private"] ¦ 7:23 ¦ routes[r].cache.ttl_overrides ¦ a ttl that is not there
base ¦ cache.ttl = "1s" ⏎ cache.ttl_overrides = ["no-store"] ¦ 8:24 ¦ routes[r].cache.ttl_overrides[1] ¦ "no-store" is not known
base ¦ cache.ttl_for = { 500 = "1s" } ¦ 7:25 ¦ routes[r].cache.ttl_for.500 ¦ never kept
base ¦ cache.ttl_for = { abc = "1s" } ¦ 7:25 ¦ routes[r].cache.ttl_for.abc ¦ is no status
base ¦ cache.tags = { "a" = "p" } ⏎ params.p = "email" ¦ 7:22 ¦ routes[r].cache.tags.a ¦ is no JSON pointer
base ¦ cache.tags = { "/a" = "q" } ⏎ params.p = "email" ¦ 7:23 ¦ routes[r].cache.tags."/a" ¦ "q" is not declared
base ¦ pages = { page = "page", size = "n" } ⏎ params.n = { type = "integer", default = 1 } ¦ 7:18 ¦ routes[r].pages.page ¦ "page" is not declared
base ¦ params.page = { type = "integer", default = 1 } ⏎ pages = { page = "page", size = "page" } ¦ 8:33 ¦ routes[r].pages.size ¦ says the page
base ¦ params.page = { type = "integer", default = 1 } ⏎ pages = { page = "page" } ¦ 8:9 ¦ routes[r].pages.size ¦ is missing
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = "integer" ⏎ pages = { page = "page", size = "n" } ¦ 9:33 ¦ routes[r].pages.size ¦ has no default
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = "email" ⏎ pages = { page = "page", size = "n" } ¦ 9:33 ¦ routes[r].pages.size ¦ `n` is no integer
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ offset = "n" ¦ 12:10 ¦ routes[r].pages.offset ¦ stands beside `page`
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ first = 2 ¦ 12:9 ¦ routes[r].pages.first ¦ from 0 to 1
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ id = "message_id" ¦ 12:6 ¦ routes[r].pages.id ¦ is no JSON pointer; expected a JSON pointer such as "/message_id"
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ items = 5 ¦ 12:9 ¦ routes[r].pages.items ¦ is an integer; expected a JSON pointer
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ members = { total = "/t" } ¦ 12:11 ¦ routes[r].pages.members ¦ expected `items` beside it
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ items = "/d" ⏎ members = { totl = "/t" } ¦ 13:13 ¦ routes[r].pages.members.totl ¦ (did you mean `total`?)
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ items = "/d" ⏎ members = { constant = ["/a", "b"] } ¦ 13:31 ¦ routes[r].pages.members.constant[2] ¦ is no JSON pointer
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ items = "/d" ⏎ members = { total = "/d/t" } ¦ 9:1 ¦ routes[r].pages ¦ "/d/t" lies within "/d"
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ items = "/d" ⏎ members = { total = "/t", count = "/t" } ¦ 9:1 ¦ routes[r].pages ¦ "/t" lies within "/t"
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ links = "uri" ¦ 12:9 ¦ routes[r].pages.links ¦ (did you mean `url`?)
base ¦ params.page = { type = "integer", default = 1 } ⏎ params.n = { type = "integer", default = 1 } ⏎ [routes.pages] ⏎ page = "page" ⏎ size = "n" ⏎ headers = { total = "x total" } ¦ 12:21 ¦ routes[r].pages.headers.total ¦ is no header name
base ¦ params.n = { type = "integer", default = 1 } ⏎ params.o = { type = "integer", default = 0 } ⏎ pages = { offset = "o", size = "n", first = 0 } ¦ 9:45 ¦ routes[r].pages.first ¦ an offset begins at 0
base ¦ params.n = { type = "integer", default = 1 } ⏎ pages = { size = "n" } ¦ 8:9 ¦ routes[r].pages.page ¦ is missing
base ¦ [server] ⏎ public_url = "gate.example" ¦ 8:14 ¦ server.public_url ¦ does not begin with http

# [routes.params].
base ¦ params.p = "phon" ¦ 7:12 ¦ routes[r].params.p ¦ (did you mean `phone`?)
base ¦ params.p = 5 ⏎ pages = { page = "p", size = "p" } ¦ 7:12 ¦ routes[r].params.p ¦ is an integer; expected a type
base ¦ params.p = {} ¦ 7:12 ¦ routes[r].params.p.type ¦ is missing
base ¦ params.p = "enum" ¦ 7:12 ¦ routes[r].params.p ¦ values = [
base ¦ params.p = { type = "phone", min = 1 } ¦ 7:30 ¦ routes[r].params.p.min ¦ is not a key; expected one of bare, country, default, on_ignored, type
base ¦ params.p = { type = "integer", min = "1" } ¦ 7:38 ¦ routes[r].params.p.min ¦ is a string; expected an integer
base ¦ params.p = { type = "integer", min = 2, max = 1 } ¦ 7:12 ¦ routes[r].params.p ¦ `min` to be at most `max`
base ¦ params.p = { type = "integer", default = "x" } ¦ 7:12 ¦ routes[r].params.p ¦ default
base ¦ params.p = { type = "integer", default = [] } ¦ 7:42 ¦ routes[r].params.p.default ¦ is a list
base ¦ params.p = { type = "prefixed" } ¦ 7:12 ¦ routes[r].params.p.prefix ¦ is missing
base ¦ params.p = { type = "enum", values = [] } ¦ 7:12 ¦ routes[r].params.p ¦ at least one value
base ¦ params.p = { type = "list", of = ["q"] } ¦ 7:12 ¦ routes[r].params.p ¦ declared parameter
base ¦ params.p = { type = "phone", country = "FR" } ¦ 7:12 ¦ routes[r].params.p ¦ calling code
base ¦ params.per_page = "email" ⏎ params.perPage = "email" ¦ 8:18 ¦ routes[r].params.perPage ¦ folds like "per_page"
"#;

#[test]
fn each_mistake_says_where_what_and_what_instead() {
    let (mut cases, mut wrong) = (0, String::new());
    for case in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [base, text, place, key, words] = case.split(" ¦ ").collect::<Vec<_>>()[..] else {
            panic!("{case}")
        };
        let text = text.replace(" ⏎ ", "\n").replace(" ⏎", "\n");
        let text = match base {
            "base" => format!("{BASE}{text}"),
            "account" => format!("{BASE}{ACCOUNT}{text}"),
            _ => text,
        };
        let all = mistakes(&text);
        let said = all.to_string();
        let colon = if key.is_empty() { "" } else { ": " };
        let begins = said.starts_with(&format!("config.toml:{place}: {key}{colon}"));
        let [mistake] = &all.iter().collect::<Vec<_>>()[..] else {
            panic!("not one mistake: {case}\n{said}")
        };
        if !begins || !mistake.message.contains(words) {
            let _ = writeln!(wrong, "{case}\n{said}\n");
        }
        assert!(!said.contains("hunter2"), "{said}");
        cases += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases > 100);
}

#[test]
fn a_name_that_is_nearly_right_is_offered() {
    let said = mistakes(&SHIPPED.replace("upstream = \"octopush\"", "upstream = \"octupush\"")).to_string();
    assert!(said.contains("upstream \"octupush\" does not exist"), "{said}");
    assert!(said.contains("(did you mean `octopush`?)\n"), "{said}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_lines() {
    let text = "timeout = 5\nparams.p = \"phon\"\nparams.l = { type = \"list\", of = [\"p\", \"q\"] }\n[server]\nlisten = 1\nx = 2\n[log]\nlevel = 3";
    let text = format!("{BASE}{text}");
    let all = mistakes(&text);
    let lines: Vec<_> = all.iter().map(|mistake| mistake.line).collect();
    // The list is told of for `q` alone: `p` is a mistake of its own.
    assert_eq!(lines, [7, 8, 9, 11, 12, 14], "{all}");
    assert!(all.iter().any(|mistake| mistake.line == 9 && mistake.message.contains("\"q\"")), "{all}");
}
