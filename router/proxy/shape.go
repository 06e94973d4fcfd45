package proxy

import (
	"net/http/httputil"
	"strings"
)

// dotted reports whether a path could climb out of the prefix that leads to an agent. Some servers drop what follows a semicolon
// in a segment before they look for dots.
func dotted(path string) bool {
	if !strings.Contains(path, "/.") {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment, _, _ = strings.Cut(segment, ";"); segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// plainly takes out of the request what would let it mean more to the agent than to the proxy: an upgrade to anything but
// WebSocket, as one to h2c would be a tunnel for requests that nobody decides on, and trailers by the names of headers that only
// the proxy may set.
func (p *Proxy) plainly(pr *httputil.ProxyRequest, x *exchange) {
	h := pr.Out.Header
	if up := h["Upgrade"]; up != nil && (len(up) != 1 || !strings.EqualFold(up[0], "websocket")) {
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
	delete(h, "Http2-Settings")
	if len(pr.Out.Trailer) == 0 || x.client.body == nil {
		return
	}
	dropForwarded(pr.Out.Trailer)
	for _, name := range []string{p.names.Override, p.names.OverrideToken, p.names.Pin, p.names.MigratedFrom, p.names.Version,
		p.names.RequestID, headerTraceparent, headerTracestate, "Connection", "Cookie", "Authorization", "Host"} {
		delete(pr.Out.Trailer, name)
	}
	x.client.body.trailer = pr.Out.Trailer
}
