package metricstest

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router"       //nolint:depguard // for tests only: what providers count is a real gateway's
	"github.com/aviary-rollouts/aviary/router/admin" //nolint:depguard // likewise
	"github.com/aviary-rollouts/aviary/router/api"
)

// What a Gateway serves, and the token of its admin API.
const (
	Agent  = "support"
	Stable = "v41"
	Canary = "v42"
	Token  = "a-token-for-tests"
)

// Gateway is a real router behind its real admin API: the counters that a provider under test gets its numbers from.
type Gateway struct {
	URL string

	t     *testing.T
	mu    sync.Mutex
	r     *router.Router
	admin http.Handler
	lives int
	fault http.HandlerFunc
}

// NewGateway starts a gateway that ends with the test.
func NewGateway(t *testing.T) *Gateway {
	t.Helper()
	g := &Gateway{t: t}
	g.Restart()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		g.mu.Lock()
		h, fault := g.admin, g.fault
		g.mu.Unlock()
		if fault != nil {
			fault(w, req)
			return
		}
		h.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	g.URL = srv.URL
	return g
}

// Restart is the gateway as a new process: all counters begin again.
func (g *Gateway) Restart() {
	g.t.Helper()
	versions := map[string]api.Version{Stable: {URL: "http://127.0.0.1:9"}, Canary: {URL: "http://127.0.0.1:9"}}
	r, err := router.New(router.Options{Agents: map[string]router.AgentOptions{Agent: {Stable: Stable, Versions: versions}}})
	if err != nil {
		g.t.Fatal(err)
	}
	h, err := admin.New(r, admin.Options{Token: Token})
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.r, g.admin = r, h
	g.lives++
}

// Router is the gateway's router, and how many processes the gateway has been.
func (g *Gateway) Router() (*router.Router, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.r, g.lives
}

// Fail answers everything by h until it is nil.
func (g *Gateway) Fail(h http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = h
}

// Serve counts n requests to the version that took latency; failed ones are the agent's fault.
func (g *Gateway) Serve(version string, n int, failed bool, latency time.Duration) {
	g.t.Helper()
	r, _ := g.Router()
	d, err := r.Decide(Agent, router.Request{Override: version})
	if err != nil {
		g.t.Fatal(err)
	}
	code := http.StatusOK
	if failed {
		code = http.StatusInternalServerError
	}
	for range n {
		d.Stats().Request(router.Outcome{Code: code, Failed: failed, Latency: latency, TTFB: latency / 2})
	}
}

// Begin counts n conversations that begin on the version.
func (g *Gateway) Begin(version string, n int) {
	g.t.Helper()
	r, _ := g.Router()
	d, err := r.Decide(Agent, router.Request{Override: version})
	if err != nil {
		g.t.Fatal(err)
	}
	for range n {
		d.Stats().Conversation()
	}
}

// Feedback counts f for the version.
func (g *Gateway) Feedback(version string, f api.Feedback) {
	g.t.Helper()
	f.Agent, f.Version = Agent, version
	r, _ := g.Router()
	if _, err := r.Feedback(f); err != nil {
		g.t.Fatal(err)
	}
}
