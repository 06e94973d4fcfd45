package router_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	provider "github.com/aviary-rollouts/aviary/activities/metrics/router"
	"github.com/aviary-rollouts/aviary/internal/replicas"
	"github.com/aviary-rollouts/aviary/router/api"
)

// name is gateways that a name stands for, all on one port of 127.0.0.2 and what follows.
type name struct {
	port string

	mu       sync.Mutex
	counters []api.Counters // by gateway
	found    []netip.Addr
	err      error
}

// LookupNetIP implements replicas.Resolver.
func (n *name) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.found, n.err
}

// now is what the gateways have counted, and which of them the name stands for.
func (n *name) now(err error, counters []api.Counters, found ...int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counters, n.err, n.found = counters, err, nil
	for _, i := range found {
		n.found = append(n.found, netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 2)}))
	}
}

func newName(t *testing.T, gateways int) (*name, metrics.Provider) {
	t.Helper()
	n := &name{}
	for i, l := range listeners(t, gateways) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n.mu.Lock()
			defer n.mu.Unlock()
			_ = json.NewEncoder(w).Encode(n.counters[i])
		}))
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		_, n.port, _ = net.SplitHostPort(l.Addr().String())
	}
	p, err := provider.Open(replicas.Settings{DNS: "http://gateways.test:" + n.port, Token: "token", Resolver: n})
	if err != nil {
		t.Fatal(err)
	}
	return n, p
}

func listeners(t *testing.T, n int) []net.Listener {
	t.Helper()
	port := "0"
	var out []net.Listener
	for tries := 0; len(out) < n; {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%s", len(out)+2, port))
		if err != nil {
			if tries++; tries > 20 {
				t.Fatal(err)
			}
			for _, l := range out {
				l.Close()
			}
			out, port = nil, "0"
			continue
		}
		out = append(out, l)
		_, port, _ = net.SplitHostPort(l.Addr().String())
	}
	return out
}

func counted(instance string, uptime, requests int64) api.Counters {
	return api.Counters{
		Instance: instance, UptimeMillis: uptime, Agent: "support-agent",
		Versions: map[string]api.Counter{"v41": {}, "v42": {Requests: requests}},
	}
}

func TestGatewaysByName(t *testing.T) {
	t.Parallel()
	const old, young = 3_600_000, 0
	n, p := newName(t, 3)
	var last json.RawMessage
	poll := func() (float64, error) {
		t.Helper()
		r := request(last, "error_rate")
		r.Agent, r.Stable, r.Canary = "support-agent", "v41", "v42"
		got, err := p.Sample(t.Context(), r)
		if err == nil {
			last = got.Cursor
		}
		return got.Requests.Canary, err
	}
	want := func(what string, requests float64) {
		t.Helper()
		if got, err := poll(); err != nil || got != requests {
			t.Errorf("%s: %v requests, %v; want %v", what, got, err, requests)
		}
	}
	n.now(nil, []api.Counters{counted("a", old, 100), counted("b", old, 1000), counted("c", young, 0)}, 0, 1)
	want("the first poll", 0)
	n.now(nil, []api.Counters{counted("a", old, 107), counted("b", old, 1020), counted("c", young, 0)}, 0, 1)
	want("both", 27)

	n.now(errors.New("no answer"), []api.Counters{counted("a", old, 110), counted("b", old, 1020), counted("c", young, 0)})
	if _, err := poll(); err == nil || !strings.Contains(err.Error(), "gateways.test") || !strings.Contains(err.Error(), "1 of 3") {
		t.Errorf("error %v, want one that names gateways.test alone", err)
	}
	n.now(nil, nil)
	if _, err := poll(); err == nil || !strings.Contains(err.Error(), "stands for no address") {
		t.Errorf("error %v, want to be told that the name stands for nothing", err)
	}

	for start := time.Now(); time.Since(start) < 10*time.Millisecond; { // so that there is a time since the last poll to begin in
		runtime.Gosched()
	}
	n.now(nil, []api.Counters{counted("a", old, 110), counted("b", old, 1020), counted("c", young, 5)}, 0, 1, 2)
	want("one that came since the last poll counts from its start", 8)
	n.now(nil, []api.Counters{counted("a", old, 110), counted("b", old, 1030), counted("c", old, 6)}, 1, 2)
	want("one has gone", 11)
	n.now(nil, []api.Counters{counted("b", old, 1033), counted("b", old, 1033), counted("c", old, 6)}, 0, 1, 2)
	want("one with two addresses counts by the first, from now on", 0)
	n.now(nil, []api.Counters{counted("b", old, 1037), counted("b", old, 1037), counted("c", old, 6)}, 0, 1, 2)
	want("one with two addresses counts once", 4)
}
