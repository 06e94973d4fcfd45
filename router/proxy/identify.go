package proxy

import (
	"cmp"
	"crypto/rand"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/aviary-rollouts/aviary/router"
)

// Names are the headers and cookies the proxy reads and sets.
type Names struct {
	Conversation  string // header with the conversation's id; X-Conversation-ID
	User          string // header with the user's id, where there is no conversation; X-User-ID
	KeyCookie     string // cookie set where there is neither; aviary_key; "-": none
	Pin           string // header with the pin, both ways; X-Aviary-Pin
	PinCookie     string // cookie with the pin; aviary_pin; "-": none
	Override      string // header of testers: true, stable or a version; X-Canary
	OverrideToken string // header with the token that lets them; X-Canary-Token
	Version       string // header of answers; X-Agent-Version
	MigratedFrom  string // header of requests and answers after a rollback; X-Conversation-Migrated-From
	RequestID     string // header with the request's id, all ways; X-Request-ID
}

func (n Names) withDefaults() Names {
	for _, f := range []struct {
		header *string
		value  string
	}{
		{&n.Conversation, "X-Conversation-ID"}, {&n.User, "X-User-ID"}, {&n.Pin, "X-Aviary-Pin"}, {&n.Override, "X-Canary"},
		{&n.OverrideToken, "X-Canary-Token"}, {&n.Version, "X-Agent-Version"}, {&n.MigratedFrom, "X-Conversation-Migrated-From"},
		{&n.RequestID, "X-Request-ID"},
	} {
		*f.header = http.CanonicalHeaderKey(cmp.Or(*f.header, f.value)) // so that net/http need not do it for every request
	}
	n.KeyCookie, n.PinCookie = cmp.Or(n.KeyCookie, "aviary_key"), cmp.Or(n.PinCookie, "aviary_pin")
	return n
}

// noCookie is a cookie's name that turns it off.
const noCookie = "-"

// identify says whose request it is: what the choice sticks to, its pin, and a tester's wish if it can be believed. A refusal
// says what a believed tester asked wrongly.
func (p *Proxy) identify(x *exchange, agent string) (q router.Request, refusal string) {
	h := x.in.Header
	q.Key = h.Get(p.names.Conversation)
	if q.Key == "" {
		q.Key = h.Get(p.names.User)
	}
	if q.Key == "" && p.names.KeyCookie != noCookie {
		q.Key = cookie(x.in, p.names.KeyCookie)
		if q.Key == "" {
			x.newKey = rand.Text()
			q.Key = x.newKey
		}
	}
	q.Pin = h.Get(p.names.Pin)
	if q.Pin == "" && p.names.PinCookie != noCookie {
		q.Pin = cookie(x.in, p.names.PinCookie)
	}
	q.Override, x.disbelieved, refusal = p.override(x.in, agent)
	return q, refusal
}

// override is the version that the request forces, or "". A request that may not force one is an ordinary request: its headers
// are ignored here and stripped on the way, and why is for the log. Doubled headers are never believed.
func (p *Proxy) override(req *http.Request, agent string) (version, ignored, refusal string) {
	wish := req.Header.Values(p.names.Override)
	switch {
	case len(wish) == 0:
		return "", "", ""
	case len(wish) > 1:
		return "", p.names.Override + " came twice", ""
	case wish[0] == "":
		return "", p.names.Override + " is empty", ""
	}
	allowed := ""
	switch tokens := req.Header.Values(p.names.OverrideToken); {
	case len(tokens) == 1:
		v, err := p.router.Keys().CheckOverride(agent, tokens[0], p.router.Now())
		if err != nil {
			return "", err.Error(), ""
		}
		allowed = v
	case len(tokens) > 1:
		return "", p.names.OverrideToken + " came twice", ""
	case !p.fromTester(req):
		return "", "no " + p.names.OverrideToken + ", and not from a trusted network", ""
	}
	switch wish[0] {
	case "true", "1":
		version = allowed
		if version == "" {
			version = p.router.Canary(agent)
		}
		if version == "" {
			return "", "", "there is no canary of " + agent + " to force"
		}
	case "stable", "false", "0":
		version = p.router.Stable(agent)
	default:
		version = wish[0]
	}
	if allowed != "" && version != allowed && version != p.router.Stable(agent) {
		return "", "", "the token is for version " + allowed
	}
	return version, "", ""
}

// fromTester reports whether the request comes from a network whose overrides need no token. The sender is the peer of the
// connection or, if that is a trusted proxy, the last address before the trusted proxies in X-Forwarded-For.
func (p *Proxy) fromTester(req *http.Request) bool {
	if len(p.options.TrustedNetworks) == 0 {
		return false
	}
	sender, ok := peer(req)
	if ok && within(p.options.TrustedProxies, sender) {
		sender, ok = p.forwardedFor(req)
	}
	return ok && within(p.options.TrustedNetworks, sender)
}

// fromProxy reports whether the peer of the connection is believed about X-Forwarded-*.
func (p *Proxy) fromProxy(req *http.Request) bool {
	if len(p.options.TrustedProxies) == 0 {
		return false
	}
	sender, ok := peer(req)
	return ok && within(p.options.TrustedProxies, sender)
}

func peer(req *http.Request) (netip.Addr, bool) {
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(host)
	return a.Unmap().WithZone(""), err == nil
}

// forwardedFor is the last sender in X-Forwarded-For that is not itself a trusted proxy.
func (p *Proxy) forwardedFor(req *http.Request) (netip.Addr, bool) {
	hops := strings.Split(strings.Join(req.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		a, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return netip.Addr{}, false
		}
		if a = a.Unmap().WithZone(""); !within(p.options.TrustedProxies, a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// cookie is the value of the request's cookie, or "".
func cookie(req *http.Request, name string) string {
	if len(req.Header["Cookie"]) == 0 {
		return ""
	}
	c, err := req.Cookie(name)
	if err != nil {
		return ""
	}
	return c.Value
}

// setCookie adds a cookie of the session for the part of the site that is the agent's.
func (p *Proxy) setCookie(h http.Header, name, value string, x *exchange) {
	if name == noCookie {
		return
	}
	secure := x.in.TLS != nil || (p.fromProxy(x.in) && x.in.Header.Get("X-Forwarded-Proto") == "https")
	//nolint:gosec // over plain HTTP a Secure cookie would never come back
	c := http.Cookie{Name: name, Value: value, Path: x.prefix, HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode}
	h.Add("Set-Cookie", c.String())
}
