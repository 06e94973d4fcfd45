package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// forwardedNames are the headers that tell who a client is, as agents may read them.
var forwardedNames = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix",
	"X-Real-Ip", "True-Client-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X_forwarded_for", "X_real_ip", "X-Forwarded_for", "X-Forwards"}

func TestForwardedHeaders(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, tt := range []struct {
		name    string
		trusted bool
		sent    []string
		want    map[string]string // HOST stands for the proxy's address
	}{
		{"nothing said", false, nil,
			map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "HOST", "X-Forwarded-Proto": "http"}},
		{"outsider lies", false, []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil", "X-Forwarded-Proto", "https",
			"X-Forwarded-Port", "1", "X-Forwarded-Prefix", "/evil", "Forwarded", "for=6.6.6.6;host=evil", "X-Real-IP", "6.6.6.6",
			"True-Client-IP", "6.6.6.6", "X-Client-IP", "6.6.6.6", "X-Cluster-Client-IP", "6.6.6.6"},
			map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "HOST", "X-Forwarded-Proto": "http"}},
		{"outsider lies by underscores", false, []string{"X_Forwarded_For", "6.6.6.6", "X-Real_IP", "6.6.6.6", "X_Real-IP", "6.6.6.6",
			"X-Forwarded_For", "6.6.6.6", "X_REAL_IP", "6.6.6.6"},
			map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "HOST", "X-Forwarded-Proto": "http"}},
		{"outsider has them dropped", false, []string{"Connection", "X-Forwarded-For, X-Forwarded-Proto, X-Request-Id"},
			map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "HOST", "X-Forwarded-Proto": "http"}},
		{"other names pass", false, []string{"X-Forwards", "kept"},
			map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "HOST", "X-Forwarded-Proto": "http", "X-Forwards": "kept"}},
		{"trusted proxy", true, []string{"X-Forwarded-For", "6.6.6.6, 10.0.0.1", "X-Forwarded-Host", "shop.example", "X-Forwarded-Proto", "https",
			"X-Forwarded-Port", "443", "Forwarded", "for=6.6.6.6", "X-Real-IP", "6.6.6.6"},
			map[string]string{"X-Forwarded-For": "6.6.6.6, 10.0.0.1, 127.0.0.1", "X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "https",
				"X-Forwarded-Port": "443", "Forwarded": "for=6.6.6.6, for=127.0.0.1", "X-Real-Ip": "6.6.6.6"}},
		{"trusted proxy with two lines", true, []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-For", "7.7.7.7"},
			map[string]string{"X-Forwarded-For": "6.6.6.6, 7.7.7.7, 127.0.0.1", "X-Forwarded-Host": "HOST", "X-Forwarded-Proto": "http"}},
		{"trusted proxy says nothing", true, nil,
			map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "HOST", "X-Forwarded-Proto": "http"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan http.Header, 1)
			w := newWorld(t, func(_ http.ResponseWriter, req *http.Request) { seen <- req.Header }, say(""), func(o *Options) {
				if tt.trusted {
					o.TrustedProxies = loopback
				}
			})
			w.get("/", tt.sent...)
			header, got := <-seen, map[string]string{}
			for _, name := range forwardedNames {
				if v := header[name]; v != nil {
					got[name] = strings.ReplaceAll(strings.Join(v, " | "), w.front.Listener.Addr().String(), "HOST")
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("at the agent (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForwardedHop(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"10.0.0.1:5": "for=10.0.0.1", "[::ffff:10.0.0.1]:5": "for=10.0.0.1", "[2001:db8::1]:5": `for="[2001:db8::1]"`,
		"[fe80::1%eth0]:5": `for="[fe80::1]"`, "@": "for=unknown", "host:5": "for=unknown",
	} {
		if got := forwardedHop(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}
