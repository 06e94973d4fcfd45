package proxy

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
)

// forwardHeaders tells the agent who asks, and by which host and scheme. What the client says about that itself is dropped, unless it
// is a trusted proxy, which is believed and added to the hops.
func (p *Proxy) forwardHeaders(pr *httputil.ProxyRequest) {
	in, out := pr.In.Header, pr.Out.Header
	if !p.fromProxy(pr.In) {
		dropForwarded(out)
		pr.SetXForwarded()
		return
	}
	out["X-Forwarded-For"] = in["X-Forwarded-For"]
	pr.SetXForwarded()
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v := in.Get(name); v != "" {
			out[name] = []string{v}
		}
	}
	if hops := in["Forwarded"]; len(hops) > 0 {
		out["Forwarded"] = []string{strings.Join(append(hops[:len(hops):len(hops)], forwardedHop(pr.In.RemoteAddr)), ", ")}
	}
}

// dropForwarded takes out every header by which proxies tell who a client is, in any spelling that an agent may take for one.
func dropForwarded(h http.Header) {
	for name := range h {
		switch {
		case len(name) < len("Forwarded"), !strings.ContainsRune("FTX", rune(name[0])):
		case isForwarded(fold(name)):
			delete(h, name)
		}
	}
}

func isForwarded(name string) bool {
	switch name {
	case "forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-")
}

// forwardedHop is the peer as an element of a Forwarded header, RFC 7239 section 6.
func forwardedHop(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return "for=unknown"
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "for=unknown"
	case a.Unmap().Is4():
		return "for=" + a.Unmap().String()
	}
	return `for="[` + a.WithZone("").String() + `]"`
}

// clientAddress is who sent the request: the peer or, behind trusted proxies, whom they name.
func (p *Proxy) clientAddress(req *http.Request) string {
	sender, ok := peer(req)
	if !ok {
		return req.RemoteAddr
	}
	if len(p.options.TrustedProxies) > 0 && within(p.options.TrustedProxies, sender) {
		if a, ok := p.forwardedFor(req); ok {
			sender = a
		}
	}
	return sender.String()
}
