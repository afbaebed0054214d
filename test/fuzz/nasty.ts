/** What no client should send. Nothing here leaves the machine when it is believed: addresses are our own. */

export const NASTY_TEXTS: readonly string[] = [
  ...["", " ", "\u0000", "a\u0000b", "\u001b[31m", "a\nb", "a\r\nx: y", "\u007f", "\u0085", "\u2028"],
  ...["\ud800", "a\udfffb", "\ufeff", "\u202eabc", "🐑", "Ä", "İ", "ﬀ", "e\u0301", "１２", "x".repeat(5000)],
  ...["x".repeat(64), "-", "a-", "-rf", "--help", "UPPER", "a_b", "a.b", "null", "undefined", "NaN"],
  ...["../../etc/passwd", "..\\..\\x", "a/b", "..", ".", "/", "%00", "%2e%2e", "%252e%252e%252f", "%s%n"],
  ...["'; DROP TABLE vm; --", "' OR '1'='1", "\\", "</name><x>", "]]>", "&xxe;", "<!DOCTYPE x>", "<![CDATA["],
  ...["$(reboot)", "`id`", ";id", "|id", "&& id", "${IFS}", "*", "?", "~root", "a b", '"', "'", "{{7*7}}"],
  ...["0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77", "0199F3A2-7C11-7E02-9F1B-2B7D1A3C5E77"],
  ...["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
  ...["__proto__", "constructor", "toString", "hasOwnProperty", "1e999", "0x10", "-0", "+1", "1_000", " 1"],
  ...["2026-02-30T25:00:00Z", "275761-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00"],
  ...["0001-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789123Z", "2026-12-31T23:59:60Z"],
  ...["9223372036854775807", "9223372036854775808", "99999999999999999999", "-9223372036854775809"],
  ...["2147483648", "-2147483649", "999999999999999", "-999999999999999", "-1", "0", "1.5", "1e3"],
  ...["qemu+ssh://root@127.0.0.1:1/system?command=id", "qemu+tcp://127.0.0.1:99999/system", "xl:///"],
  ...["file:///etc/passwd", "sim+kvm://x?cpus=-1", "sim+kvm://x?cpus=1&cpus=2", "sim+kvm://", "sim+kvm://A"],
  ...[
    "http://127.0.0.1/",
    "http://[::1]/",
    "http://user:pw@127.0.0.1/",
    "http://0x7f000001/",
    "http://[",
    "//",
  ],
  ...["role=web,", "role==web", "a in (", "a in ()", "!!a", ",".repeat(40), "a=b,".repeat(40), "in in (in)"],
];

export const NASTY_VALUES: readonly unknown[] = [
  ...[null, true, false, 0, -0, -1, 1, 1.5, 0.1, 1e-7, 1e21, 1e308, -1e308],
  ...[2 ** 31 - 1, 2 ** 31, -(2 ** 31) - 1, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 2 ** 64],
  ...[
    [],
    {},
    [[]],
    [null],
    [{}],
    { toString: 1 },
    { length: 1 },
    { "": "" },
    Array.from({ length: 200 }, () => 0),
  ],
  ...NASTY_TEXTS,
];

/** Names of members that should not be there. */
export const NASTY_KEYS: readonly string[] = [
  ...["surplus", "", "constructor", "prototype", "toString", "hasOwnProperty", "a\u0000b", "\ud800", "🐑"],
  ...["id", "project", "status", "generation", "$ref", "a/b", "~", "k".repeat(3000)],
];

/** Parts of a path as they are written, percent-encoding included. */
export const NASTY_SEGMENTS: readonly string[] = [
  ...["%2e%2e", "%2e", "..", ".", "%2f", "%5c", "a%2fb", "%252e%252e%252f", "%00", "a%00b", "%0a", "%0d%0ax"],
  ...[
    "%",
    "%z",
    "%zz",
    "%c0%ae",
    "%ff",
    "%ed%a0%80",
    "%f0%9f%90%91",
    "%EF%BB%BF",
    "%20",
    "+",
    "a+b",
    "~",
    "*",
  ],
  ...[";a=b", "a;b", "a,b", "a:b", "@", "$(id)", "'", '"', "<x>", "a|b", "{vm}", ":vm", "x".repeat(257)],
  ...["x".repeat(4000), "__proto__", "constructor", "Web-1", "-", "a-", "%41", "%61", "0", "null"],
  ...["0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77", "0199F3A2-7C11-7E02-9F1B-2B7D1A3C5E77"],
];

/** Query strings that are wrong as a whole. */
export const NASTY_QUERIES: readonly string[] = [
  ...[
    "",
    "?",
    "&",
    "&&&",
    "=",
    "=x",
    "a",
    "%",
    "%zz",
    "%ff=%ff",
    "%00=%00",
    "a[b]=c",
    "a[]=1&a[]=2",
    "a.b=c",
  ],
  ...[
    "__proto__=1",
    "__proto__[x]=1",
    "constructor=1",
    "pageSize",
    "pageSize=&pageSize=",
    "wait=61",
    "wait=-1",
  ],
  ...["project=default&project=default", "project[]=default", "project=%00", "project=", "pageToken=W10"],
  ...[
    "pageToken=%00",
    "pageToken=eyJ9",
    `q=${"x".repeat(10_000)}`,
    "a=1&".repeat(1200),
    "a;b=c",
    "x=\u00e9",
    "#a",
  ],
];

/** Header lines, raw: what is wrong is wrong on the wire. */
export const NASTY_HEADERS: readonly (readonly [name: string, value: string])[] = [
  ...(["", "x", "3", '"', '"3', "W/", 'W/"1"', '"1", "2"', ",", '"\u00ff"', '"1"'.repeat(500)] as const).map(
    (value) => ["If-Match", value] as const,
  ),
  ...(["", "a b", "x".repeat(256), "\u00e9", "a, b", "x".repeat(3000)] as const).map(
    (value) => ["Idempotency-Key", value] as const,
  ),
  ...(
    [
      "",
      "Bearer",
      "Bearer ",
      "Bearer x",
      "Basic eDp5",
      "Bearer a b",
      "\u00ff",
      "Bearer x".repeat(200),
    ] as const
  ).map((value) => ["Authorization", value] as const),
  ...(["", "x", "-1", "99999999999999999999", "1.5", "0", "\u00ff"] as const).map(
    (value) => ["Last-Event-ID", value] as const,
  ),
  ...(["100-continue", "x", ""] as const).map((value) => ["Expect", value] as const),
  ...(["gzip", "identity", "chunked"] as const).map((value) => ["Content-Encoding", value] as const),
  ...(["gzip", "chunked, chunked", "identity", "xchunked"] as const).map(
    (value) => ["Transfer-Encoding", value] as const,
  ),
  ...(["", "x", "text/xml", "*/*;q=x", "application/xml", "text/event-stream;q=0"] as const).map(
    (value) => ["Accept", value] as const,
  ),
  ["X-Request-Id", "a b"],
  ["X-Request-Id", "x".repeat(400)],
  ["X-Forwarded-For", "127.0.0.1"],
  ["Forwarded", "for=127.0.0.1"],
  ["X-HTTP-Method-Override", "DELETE"],
  ["Host", "other"],
  ["Upgrade", "websocket"],
  ["Range", "bytes=0-1"],
  ["If-None-Match", "*"],
  ["Cookie", "a=b"],
  ["X-Long", "x".repeat(20_000)],
  ["X-Control", "a\u0001b"],
  ["X Name", "a"],
  ["", "a"],
];

export const NASTY_CONTENT_TYPES: readonly string[] = [
  ...["", "text/plain", "application/xml", "application/jsonx", "application/x-www-form-urlencoded", "json"],
  ...[
    "multipart/form-data; boundary=x",
    "application/json; charset=latin1",
    "application/json; charset=\u00ff",
  ],
  ...[
    "APPLICATION/JSON",
    "application/json;",
    "application/json;;;",
    "application/json, text/plain",
    "/",
    "a/b/c",
  ],
  ...["application/octet-stream", "x".repeat(2000)],
];

export const ODD_METHODS: readonly string[] = [
  ...["HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "PURGE", "PUT", "PATCH", "DELETE", "POST", "GET"],
  ...["BREW", "get", "G\u0000T", "CONNECT", "LOCK", "x".repeat(300)],
];
