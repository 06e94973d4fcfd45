package config

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// LoadGateway is ParseGateway of the file at path, with the process's environment.
func LoadGateway(path string) (Gateway, error) {
	data, err := read(path)
	if err != nil {
		return Gateway{}, err
	}
	return ParseGateway(path, data, os.LookupEnv)
}

// ParseGateway is the settings in data, with defaults filled in and secrets read. Relative paths are relative to the folder of
// filename. Errors are Problems.
func ParseGateway(filename string, data []byte, lookup Lookup) (Gateway, error) {
	var g Gateway
	g.SetDefaults()
	d, err := settings(filename, data, lookup, &g)
	if err != nil {
		return Gateway{}, err
	}
	g.check(d.report)
	if err := d.problems.err(); err != nil {
		return Gateway{}, err
	}
	return g, nil
}

// leastKey is how long a secret that signs pins must be, in bytes.
const leastKey = 16

// check reports what is wrong with the settings.
func (g Gateway) check(r report) {
	checkListen(g.Listen, "listen", r)
	checkListen(g.AdminListen, "admin_listen", r)
	if g.AdminToken.File == "" && g.AdminToken.Env == "" {
		r("admin_token_env", "is missing, want admin_token_env or admin_token_file; the admin API is never open")
	}
	for i, k := range g.PinKeys {
		path := fmt.Sprintf("pin_keys[%d]", i)
		if !rollout.ValidName(k.ID) {
			r(path+".id", "%s is not a name, want %s", quote(k.ID), rollout.NamePattern)
		}
		switch n := len(k.Secret.Reveal()); {
		case k.Secret.Env == "" && k.Secret.File == "":
			r(path, "want exactly one of env or file")
		case n > 0 && n < leastKey:
			r(path, "the secret has %d bytes, want at least %d", n, leastKey)
		}
		if first := slices.IndexFunc(g.PinKeys, func(o GatewayKey) bool { return o.ID == k.ID }); first < i {
			r(path+".id", "the same as pin_keys[%d], want every id once", first)
		}
	}
	checkBetween(g.PinTTL, time.Second, maxDuration, "pin_ttl", r)
	checkBetween(g.DrainDeadline, 0, maxDuration, "drain_deadline", r)
	if g.Memory < 1 || g.Memory > 10_000_000 {
		r("memory", "%d, want 1 to 10000000 conversations", g.Memory)
	}
	if g.StickyMemory < 0 || g.StickyMemory > 10_000_000 {
		r("sticky_memory", "%d, want 0 (none) to 10000000 conversations", g.StickyMemory)
	}
	for i, n := range g.TrustedNetworks {
		checkPrefix(n, fmt.Sprintf("trusted_networks[%d]", i), r)
	}
	for i, n := range g.TrustedProxies {
		checkPrefix(n, fmt.Sprintf("trusted_proxies[%d]", i), r)
	}
	for _, name := range slices.Sorted(maps.Keys(g.Agents)) {
		path := child("agents", name)
		if !rollout.ValidName(name) {
			r(path, "%s is not a name, want %s", quote(name), rollout.NamePattern)
		}
		g.Agents[name].check(r.under(path))
	}
	g.Timeouts.check(r.under("timeouts"))
	g.checkEdges(r)
}

// checkEdges reports what is wrong with how clients are met.
func (g Gateway) checkEdges(r report) {
	g.TLS.check(r.under("tls"))
	g.AdminTLS.check(r.under("admin_tls"))
	if s := g.AccessLog.Sample; !(s >= 0 && s <= 1) {
		r("access_log.sample", "%v, want a share from 0 to 1, such as 0.01", s)
	}
	if g.MaxConnections < 0 || g.MaxConnections > 10_000_000 {
		r("max_connections", "%d, want 1 to 10000000 connections, or 0 for no limit", g.MaxConnections)
	}
	if g.MaxHeaderBytes < 4<<10 || g.MaxHeaderBytes > 1<<20 {
		r("max_header_bytes", "%d, want 4096 to 1048576 bytes", g.MaxHeaderBytes)
	}
}

func (t *GatewayTLS) check(r report) {
	switch {
	case t == nil:
	case t.CertFile == "":
		r("cert_file", "is missing, want the file of the certificate in PEM, with those that lead to its authority")
	case t.KeyFile == "":
		r("key_file", "is missing, want the file of the certificate's key in PEM")
	}
}

func (t GatewayTimeouts) check(r report) {
	const most = time.Hour
	checkBetween(t.ReadHeader, time.Millisecond, most, "read_header", r)
	checkBetween(t.Idle, time.Millisecond, most, "idle", r)
	checkBetween(t.Dial, time.Millisecond, most, "dial", r)
	checkBetween(t.ResponseHeader, time.Millisecond, most, "response_header", r)
	checkBetween(t.Shutdown, 0, most, "shutdown", r)
	checkBetween(t.ShutdownDelay, 0, most, "shutdown_delay", r)
	checkBetween(t.ClientRead, 0, most, "client_read", r)
	checkBetween(t.ClientWrite, 0, most, "client_write", r)
}

func (a GatewayAgent) check(r report) {
	if len(a.Versions) == 0 {
		r("versions", "is missing, want at least one, such as v1: {url: http://127.0.0.1:9001}")
	}
	known := slices.Sorted(maps.Keys(a.Versions))
	switch {
	case a.Stable == "":
		r("stable", "is missing, want the version that all traffic goes to")
	case !slices.Contains(known, a.Stable) && len(known) > 0:
		r("stable", "%s is not one of the versions, want %s", quote(a.Stable), oneOf(known...))
	}
	if a.Path != "" && (!strings.HasPrefix(a.Path, "/") || !strings.HasSuffix(a.Path, "/")) {
		r("path", "%s, want a prefix that begins and ends with /", quote(a.Path))
	}
	if a.Hash != "" && a.Hash != "aviary" && a.Hash != "flagd" {
		r("hash", "%s, want aviary or flagd", quote(a.Hash))
	}
	if strings.ContainsAny(a.Host, ":/ ") {
		r("host", "%s, want a host's name without port and path", quote(a.Host))
	}
	for _, version := range known {
		path := child("versions", version)
		if !rollout.ValidName(version) {
			r(path, "%s is not a name, want %s", quote(version), rollout.NamePattern)
		}
		a.Versions[version].check(r.under(path))
	}
	a.Timeouts.check(r.under("timeouts"))
	a.Limits.check(r.under("limits"))
}

func (v GatewayVersion) check(r report) {
	switch {
	case v.URL != "" && len(v.URLs) > 0:
		r("urls", "url is given too, want one of them")
	case len(v.URLs) > 64:
		r("urls", "has %d instances, want at most 64", len(v.URLs))
	case v.URL == "" && len(v.URLs) == 0:
		r("url", "is missing, want where the version is, such as http://127.0.0.1:9001")
	case v.URL != "":
		checkInstance(v.URL, "url", r)
	}
	for i, u := range v.URLs {
		path := fmt.Sprintf("urls[%d]", i)
		checkInstance(u, path, r)
		if first := slices.Index(v.URLs, u); first < i {
			r(path, "the same as urls[%d], want every instance once", first)
		}
	}
}

// checkInstance is checkURL, and lets pass what speaks HTTP/2 without TLS.
func checkInstance(address, path string, r report) {
	if u, err := url.Parse(address); err == nil && u.Scheme == "h2c" && u.Hostname() != "" {
		u.Scheme = "http"
		address = u.String()
	}
	checkURL(address, path, r)
}

func (t AgentTimeouts) check(r report) {
	if t.ResponseHeader != 0 {
		checkBetween(t.ResponseHeader, time.Millisecond, time.Hour, "response_header", r)
	}
	if t.IdleStream != 0 {
		checkBetween(t.IdleStream, time.Millisecond, 24*time.Hour, "idle_stream", r)
	}
}

func (l AgentLimits) check(r report) {
	if l.Concurrency < 0 || l.Concurrency > 1_000_000 {
		r("concurrency", "%d, want 0 (no limit) to 1000000 requests under way per version", l.Concurrency)
	}
	if l.Queue < 0 || l.Queue > 100_000 {
		r("queue", "%d, want 0 to 100000 waiting requests", l.Queue)
	}
	if l.Queue > 0 && l.Concurrency == 0 {
		r("queue", "without a concurrency nothing ever waits, want both")
	}
	if l.QueueTimeout != 0 {
		checkBetween(l.QueueTimeout, time.Millisecond, 10*time.Minute, "queue_timeout", r)
	}
}
