package router_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	driver "github.com/aviary-rollouts/aviary/activities/traffic/router"
	"github.com/aviary-rollouts/aviary/activities/traffic/traffictest"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/admin"
	"github.com/aviary-rollouts/aviary/router/api"
)

const token = "a-token-for-tests"

// gateway is a real router behind its real admin API, with a switch for faults in between.
type gateway struct {
	*httptest.Server
	router *router.Router

	mu    sync.Mutex
	fault http.HandlerFunc // instead of the admin API
	admin http.Handler
}

func newGateway(t *testing.T, versions ...string) *gateway {
	t.Helper()
	g := &gateway{}
	g.restart(t, versions...)
	g.Server = httptest.NewUnstartedServer(g.handler())
	g.Start()
	t.Cleanup(g.Close)
	return g
}

// handler is the admin API, unless there is a fault in between.
func (g *gateway) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		fault, h := g.fault, g.admin
		g.mu.Unlock()
		if fault != nil {
			fault(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// restart is the gateway as a new process that remembers nothing.
func (g *gateway) restart(t *testing.T, versions ...string) {
	t.Helper()
	agent := router.AgentOptions{Stable: "v41", Versions: map[string]api.Version{}}
	for _, v := range append([]string{"v41"}, versions...) {
		agent.Versions[v] = api.Version{URL: "http://127.0.0.1:9"}
	}
	ring, err := router.NewKeyring(router.Key{ID: "k", Secret: []byte("one secret of all gateways")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := router.New(router.Options{Keys: ring, Agents: map[string]router.AgentOptions{"support": agent}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := admin.New(r, admin.Options{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.router, g.admin = r, h
}

func (g *gateway) fail(h http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = h
}

// down makes the admin API fail, or answer again, and returns name.
func (g *gateway) down(down bool, name string) string {
	if g.fail(nil); down {
		g.fail(status(http.StatusInternalServerError, ""))
	}
	return name
}

// hang never answers until the test ends or the caller goes.
func hang(t *testing.T) http.HandlerFunc {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}
}

func newPlane(t *testing.T, n int) (*driver.Driver, []*gateway) {
	t.Helper()
	var gateways []*gateway
	var addresses []string
	for range n {
		g := newGateway(t, "v42")
		gateways = append(gateways, g)
		addresses = append(addresses, g.URL)
	}
	d, err := driver.New(addresses, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d, gateways
}

func route(revision int64, weight rollout.Weight) rollout.Route {
	return rollout.Route{
		Agent: "support", Stable: "v41", Canary: "v42", Weight: weight, Owner: "o", Revision: revision,
		Lease: rollout.Duration(time.Minute), OnRollback: rollout.Evict,
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"one gateway": 1, "three gateways": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			traffictest.Run(t, func(t *testing.T) traffictest.Plane {
				d, gateways := newPlane(t, n)
				p := traffictest.Plane{Driver: d, Agent: "support", Stable: "v41", Canary: "v42"}
				if last := gateways[n-1]; n > 1 {
					p.Fail = func(down bool) string { return last.down(down, last.URL) }
				}
				return p
			})
		})
	}
}

func TestRestoreReachesTheOthers(t *testing.T) {
	t.Parallel()
	d, gateways := newPlane(t, 3)
	if err := d.Apply(t.Context(), route(1, 2500)); err != nil {
		t.Fatal(err)
	}
	gateways[1].fail(hang(t))
	back := route(2, 0)
	back.Rollback = true
	done := make(chan error, 1)
	go func() { done <- d.Apply(t.Context(), back) }()
	deadline := time.Now().Add(time.Second) // well below the time limit of the one that hangs
	for _, i := range []int{0, 2} {
		for weightOf(t, gateways[i]) != 0 {
			if time.Now().After(deadline) {
				t.Fatalf("gateway %d still has weight", i)
			}
		}
	}
	err := <-done
	var rejected *traffic.Rejected
	var lost *traffic.OwnershipLost
	if err == nil || errors.As(err, &rejected) || errors.As(err, &lost) || !strings.Contains(err.Error(), gateways[1].URL) ||
		strings.Contains(err.Error(), gateways[0].URL) {
		t.Errorf("error %v, want a passing fault that names %s alone", err, gateways[1].URL)
	}
	o, err := d.Read(t.Context(), rollout.Route{Agent: "support"})
	if err != nil || !slices.Equal(o.Lagging, []string{gateways[1].URL}) {
		t.Errorf("read %+v, %v: want it to name the one that hangs", o, err)
	}
	gateways[1].fail(nil)
	if err := d.Apply(t.Context(), back); err != nil {
		t.Errorf("the next try: %v", err)
	}
}

func weightOf(t *testing.T, g *gateway) int {
	t.Helper()
	o, err := g.router.Observed("support")
	if err != nil {
		t.Fatal(err)
	}
	return o.EffectiveWeight
}

func TestReadMerges(t *testing.T) {
	t.Parallel()
	d, gateways := newPlane(t, 3)
	if err := d.Apply(t.Context(), route(1, 2500)); err != nil {
		t.Fatal(err)
	}
	gateways[0].fail(hang(t))
	if err := d.Apply(t.Context(), route(2, 0)); err == nil {
		t.Fatal("no error with a gateway that hangs")
	}
	gateways[0].fail(nil)
	gateways[2].restart(t)
	want := traffic.Observed{
		Agent: "support", Stable: "v41", Canary: "v42", Weight: 2500, Effective: 2500, Owner: "o", Revision: 2,
		Versions: []string{"v41"}, Lagging: []string{gateways[0].URL, gateways[2].URL},
	}
	got, err := d.Read(t.Context(), rollout.Route{Agent: "support"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	list, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]traffic.Observed{want}, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestRestoreOfAVersionThatAReplicaForgot(t *testing.T) {
	t.Parallel()
	d, gateways := newPlane(t, 2)
	if err := d.Apply(t.Context(), route(1, 2500)); err != nil {
		t.Fatal(err)
	}
	gateways[1].restart(t)
	err := d.Apply(t.Context(), route(2, 5000))
	var rejected *traffic.Rejected
	if err == nil || errors.As(err, &rejected) || !strings.Contains(err.Error(), gateways[1].URL) {
		t.Errorf("error %v, want a passing one: the other gateway takes the route", err)
	}
	back := route(3, 0)
	back.Rollback = true
	if err := d.Apply(t.Context(), back); err != nil {
		t.Errorf("restore: %v", err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault http.HandlerFunc
		want  string
	}{
		"a proxy's 404":  {http.NotFound, "passing"},
		"internal error": {status(500, ""), "passing"},
		"bad gateway":    {status(502, "<html>"), "passing"},
		"wrong token":    {status(401, `{"code":"unauthorized","error":"no"}`), "passing"},
		"not ready":      {status(503, `{"code":"not_ready","error":"warming up"}`), "busy"},
		"too many":       {status(429, ""), "busy"},
		"not JSON":       {status(200, "<html>"), "passing"},
		"another state":  {status(200, `{"agent":"support","stable":"v41","weight":7}`), "passing"},
		"another owner":  {status(200, `{"agent":"support","owner":"x","revision":1}`), "lost"},
		"unknown agent":  {status(404, `{"code":"unknown_agent","error":"no","known":["other"]}`), "rejected"},
		"fenced":         {status(409, `{"code":"ownership_lost","error":"no","owner":"x","revision":3}`), "lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, gateways := newPlane(t, 1)
			gateways[0].fail(tt.fault)
			err := d.Apply(t.Context(), route(1, 500))
			if got := kind(err); got != tt.want {
				t.Errorf("%s (%v), want %s", got, err, tt.want)
			}
			if strings.Contains(err.Error(), token) {
				t.Errorf("error %q tells the token", err)
			}
		})
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if code == 503 || code == 429 {
			w.Header().Set("Retry-After", "3")
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

func kind(err error) string {
	var (
		busy     *traffic.Busy
		rejected *traffic.Rejected
		lost     *traffic.OwnershipLost
	)
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &busy) && busy.RetryAfter == 3*time.Second:
		return "busy"
	case errors.As(err, &rejected):
		return "rejected"
	case errors.As(err, &lost):
		return "lost"
	}
	return "passing"
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	d, gateways := newPlane(t, 2)
	for _, g := range gateways {
		g.Close()
	}
	_, err := d.Read(t.Context(), rollout.Route{Agent: "support"})
	if kind(err) != "passing" || !strings.Contains(err.Error(), gateways[0].URL) || !strings.Contains(err.Error(), gateways[1].URL) {
		t.Errorf("read: %v, want a passing fault that names both", err)
	}
	if _, err := d.List(t.Context()); kind(err) != "passing" {
		t.Errorf("list: %v, want a passing fault", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := d.Apply(ctx, route(1, 0)); kind(err) != "passing" {
		t.Errorf("apply: %v, want a passing fault", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, addresses := range map[string][]string{
		"none": {}, "no URL": {"http://user:pw@host:port"}, "other scheme": {"ftp://user:pw@host"}, "twice": {"http://a:1", "http://user:pw@a:1/"},
	} {
		if _, err := driver.New(addresses, token, nil); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: error %v, want one without secrets", name, err)
		}
	}
}
