package proxy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router"
)

func TestOverride(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	ring, err := router.NewKeyring(router.Key{ID: "k", Secret: []byte("0123456789abcdef0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	thief, err := router.NewKeyring(router.Key{ID: "k", Secret: []byte("another secret, another secret, ")})
	if err != nil {
		t.Fatal(err)
	}
	later, earlier := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	good := ring.OverrideToken(agent, "v42", later)
	trusted := func(o *Options) { o.TrustedNetworks = loopback }
	behind := func(o *Options) {
		o.TrustedProxies = loopback
		o.TrustedNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	}
	chain := func(o *Options) {
		behind(o)
		o.TrustedProxies = append([]netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}, loopback...)
	}
	all := func(o *Options) {
		o.TrustedProxies, o.TrustedNetworks = loopback, loopback
	}
	for _, tt := range []struct {
		name    string
		options func(*Options)
		headers []string
		status  int
		body    string
		counted int64 // requests in the metrics, over both versions
	}{
		{"token", nil, []string{"X-Canary", "true", "X-Canary-Token", good}, 200, "canary", 0},
		{"token and version", nil, []string{"X-Canary", "v42", "X-Canary-Token", good}, 200, "canary", 0},
		{"token, other case", nil, []string{"x-cAnArY", "v42", "x-canary-TOKEN", good}, 200, "canary", 0},
		{"token and stable", nil, []string{"X-Canary", "stable", "X-Canary-Token", good}, 200, "stable", 0},
		{"token for another version", nil, []string{"X-Canary", "v40", "X-Canary-Token", good}, 403, "", 0},
		{"token without wish", nil, []string{"X-Canary-Token", good}, 200, "stable", 1},
		{"wish without token", nil, []string{"X-Canary", "true"}, 200, "stable", 1},
		{"empty wish", nil, []string{"X-Canary", "", "X-Canary-Token", good}, 200, "stable", 1},
		{"forged", nil, []string{"X-Canary", "true", "X-Canary-Token", thief.OverrideToken(agent, "v42", later)}, 200, "stable", 1},
		{"expired", nil, []string{"X-Canary", "true", "X-Canary-Token", ring.OverrideToken(agent, "v42", earlier)}, 200, "stable", 1},
		{"another agent's", nil, []string{"X-Canary", "true", "X-Canary-Token", ring.OverrideToken("billing-agent", "v42", later)}, 200, "stable", 1},
		{"two wishes", nil, []string{"X-Canary", "true", "X-Canary", "true", "X-Canary-Token", good}, 200, "stable", 1},
		{"two tokens", nil, []string{"X-Canary", "true", "X-Canary-Token", good, "X-Canary-Token", good}, 200, "stable", 1},
		{"unknown version, signed", nil, []string{"X-Canary", "true", "X-Canary-Token", ring.OverrideToken(agent, "v99", later)}, 422, "", 0},
		{"trusted network", trusted, []string{"X-Canary", "true"}, 200, "canary", 0},
		{"trusted network, bad token", trusted, []string{"X-Canary", "true", "X-Canary-Token", "junk"}, 200, "stable", 1},
		{"trusted network, two tokens", trusted, []string{"X-Canary", "true", "X-Canary-Token", good, "X-Canary-Token", good}, 200, "stable", 1},
		{"trusted network, unknown version", trusted, []string{"X-Canary", "v99"}, 422, "", 0},
		{"forwarded-for without a proxy", trusted, []string{"X-Canary", "true", "X-Forwarded-For", "6.6.6.6"}, 200, "canary", 0},
		{"proxy in front, sender inside", behind, []string{"X-Canary", "true", "X-Forwarded-For", "6.6.6.6, 10.1.2.3"}, 200, "canary", 0},
		{"two proxies in front, sender inside", chain, []string{"X-Canary", "true", "X-Forwarded-For", "10.1.2.3, 192.168.0.1"}, 200, "canary", 0},
		{"two proxies in front, sender outside", chain, []string{"X-Canary", "true", "X-Forwarded-For", "10.1.2.3, 6.6.6.6, 192.168.0.1"}, 200, "stable", 1},
		{"nothing but proxies", chain, []string{"X-Canary", "true", "X-Forwarded-For", "192.168.0.1"}, 200, "stable", 1},
		{"proxy in front, sender outside", behind, []string{"X-Canary", "true", "X-Forwarded-For", "10.1.2.3, 6.6.6.6"}, 200, "stable", 1},
		{"proxy in front, no sender", behind, []string{"X-Canary", "true"}, 200, "stable", 1},
		{"proxy in front, nonsense", behind, []string{"X-Canary", "true", "X-Forwarded-For", "10.1.2.3, x"}, 200, "stable", 1},
		{"proxy is not a tester", all, []string{"X-Canary", "true", "X-Forwarded-For", "6.6.6.6"}, 200, "stable", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			options := tt.options
			if options == nil {
				options = func(*Options) {}
			}
			w := newWorld(t, say("stable"), say("canary"), options)
			w.route(0, 1) // a canary that gets nothing but from testers
			resp, body := w.get("/", tt.headers...)
			if resp.StatusCode != tt.status || (tt.status == 200 && body != tt.body) {
				t.Errorf("answer %d %q, want %d %q", resp.StatusCode, body, tt.status, tt.body)
			}
			if n := w.counter("v41").Requests + w.counter("v42").Requests; n != tt.counted {
				t.Errorf("%d requests counted, want %d", n, tt.counted)
			}
			if tt.counted == 0 && (resp.Header.Get("X-Aviary-Pin") != "" || strings.Contains(resp.Header.Get("Set-Cookie"), "aviary_pin")) {
				t.Error("a tester was pinned")
			}
		})
	}
}

func TestOverrideWithoutACanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, say("stable"), say("canary"), func(o *Options) {
		o.TrustedNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	if resp, body := w.get("/", "X-Canary", "true"); resp.StatusCode != 403 {
		t.Errorf("answer %d %q: want to be told that there is none", resp.StatusCode, body)
	}
}

// TestIgnoredOverridesAreLogged: whoever is not believed gets an ordinary answer, and whoever reads the log is told why.
func TestIgnoredOverridesAreLogged(t *testing.T) {
	t.Parallel()
	var log lines
	w := newWorld(t, say("stable"), say("canary"), logTo(&log, 1))
	w.route(0, 1)
	keys := w.router.Keys()
	good, expired := keys.OverrideToken(agent, "v42", time.Now().Add(time.Hour)), keys.OverrideToken(agent, "v42", time.Now().Add(-time.Hour))
	for name, tt := range map[string]struct {
		headers []string
		want    any
	}{
		"no wish":      {nil, nil},
		"believed":     {[]string{"X-Canary", "true", "X-Canary-Token", good}, nil},
		"expired":      {[]string{"X-Canary", "true", "X-Canary-Token", expired}, "token has expired"},
		"forged":       {[]string{"X-Canary", "true", "X-Canary-Token", good + "x"}, "token is not valid"},
		"no token":     {[]string{"X-Canary", "true"}, "no X-Canary-Token, and not from a trusted network"},
		"two wishes":   {[]string{"X-Canary", "true", "X-Canary", "v42"}, "X-Canary came twice"},
		"two tokens":   {[]string{"X-Canary", "true", "X-Canary-Token", good, "X-Canary-Token", good}, "X-Canary-Token came twice"},
		"an empty one": {[]string{"X-Canary", ""}, "X-Canary is empty"},
	} {
		w.get("/", append(tt.headers, "X-Request-ID", strings.ReplaceAll(name, " ", "-"))...)
		line := log.wait(t, strings.ReplaceAll(name, " ", "-"))
		if line["override_ignored"] != tt.want {
			t.Errorf("%s: %v, want %v", name, line["override_ignored"], tt.want)
		}
		if _, chosen := line["bucket"]; chosen == (name == "believed") {
			t.Errorf("%s: bucket %v", name, line["bucket"])
		}
	}
}
