// Package metricstest is the conformance suite of metrics providers that take a gateway's numbers.
package metricstest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router/api"
)

// Fault is what a source does wrong until it is told otherwise.
type Fault string

// The faults.
const (
	Well   Fault = ""
	Busy   Fault = "busy"   // come back in BusyFor
	Broken Fault = "broken" // an internal error
	Hang   Fault = "hang"   // no answer until the caller gives up
)

// BusyFor is the pause that a Busy source asks for.
const BusyFor = 7 * time.Second

// Source is a provider under test, fresh, with two gateways behind it.
type Source struct {
	Provider metrics.Provider
	Gateways [2]*Gateway
	// Publish brings the gateways' counters to where the provider reads them, as a scrape does. Nil: they are there at once.
	Publish func()
	Fail    func(Fault)
	Secrets []string // must not be told in any error
}

// Run runs the suite. Setup makes a fresh source for one test and cleans it up.
func Run(t *testing.T, setup func(t *testing.T) Source) {
	t.Helper()
	for name, test := range map[string]func(*poller){
		"the first poll only takes a position":             position,
		"every preset is exact":                            everyPreset,
		"a repeated poll doubles nothing, loses nothing":   repeated,
		"many polls add up":                                addUp,
		"a restart counts from zero":                       restart,
		"a restart is seen though counters have overtaken": overtaken,
		"a metric that is asked for later begins then":     askedLater,
		"conversations that begin":                         conversations,
		"a cursor of a newer version is left alone":        newer,
		"nonsense is rejected":                             nonsense,
		"a busy source asks for a pause":                   busy,
		"passing faults lose nothing":                      faults,
		"a caller that is gone gets an error":              canceled,
		"the cursor stays small":                           small,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			if s.Publish == nil {
				s.Publish = func() {}
			}
			test(&poller{T: t, Source: s})
		})
	}
}

// poller polls a source as an observer does.
type poller struct {
	*testing.T
	Source
	cursor json.RawMessage
}

func (p *poller) request(names ...string) metrics.Request {
	request := metrics.Request{Agent: Agent, Stable: Stable, Canary: Canary, Cursor: p.cursor}
	for _, m := range analysis.Presets() {
		for _, name := range names {
			if m.Name == name {
				request.Metrics = append(request.Metrics, metrics.Metric{Metric: m})
			}
		}
	}
	return request
}

func all() []string {
	var names []string
	for _, m := range analysis.Presets() {
		names = append(names, m.Name)
	}
	return names
}

// sample asks once, and checks what no error may tell.
func (p *poller) sample(request metrics.Request) (metrics.Samples, error) {
	ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
	defer cancel()
	got, err := p.Provider.Sample(ctx, request)
	if err != nil {
		for _, secret := range p.Secrets {
			if strings.Contains(err.Error(), secret) {
				p.Errorf("error %q tells a secret", err)
			}
		}
	}
	return got, err
}

// poll publishes, asks, and goes on from there.
func (p *poller) poll(names ...string) metrics.Samples {
	p.Helper()
	p.Publish()
	got, err := p.sample(p.request(names...))
	if err != nil {
		p.Fatal(err)
	}
	if !json.Valid(got.Cursor) {
		p.Fatalf("the cursor %q is not JSON", got.Cursor)
	}
	if got.At.IsZero() {
		p.Error("the samples say no time")
	}
	p.cursor = got.Cursor
	return got
}

func (p *poller) wantRequests(got metrics.Samples, stable, canary float64) {
	p.Helper()
	if diff := cmp.Diff(rollout.Requests{Stable: stable, Canary: canary}, got.Requests); diff != "" {
		p.Errorf("requests (-want +got):\n%s", diff)
	}
}

// wantZero wants every number to be zero.
func (p *poller) wantZero(got metrics.Samples, names ...string) {
	p.Helper()
	p.wantRequests(got, 0, 0)
	for _, name := range names {
		s, ok := got.Metrics[name]
		if !ok {
			p.Errorf("%s is missing", name)
		}
		for _, c := range []analysis.Counts{s.Stable, s.Canary} {
			sum := c.N + c.X
			for _, b := range c.Buckets {
				sum += b
			}
			if sum != 0 {
				p.Errorf("%s grew by %+v, want nothing", name, c)
			}
		}
	}
}

func position(p *poller) {
	p.Gateways[0].Serve(Stable, 1000, false, time.Second)
	p.wantZero(p.poll(all()...), all()...)
	p.wantZero(p.poll(all()...), all()...)
}

func everyPreset(p *poller) {
	p.Gateways[0].Serve(Stable, 5, true, time.Second) // before the position
	p.poll(all()...)
	one, two, hundred := 1.0, 2.0, 100.0
	for i, g := range p.Gateways {
		g.Serve(Stable, 100, false, 200*time.Millisecond)
		g.Serve(Canary, 10+i, false, 400*time.Millisecond)
		g.Serve(Canary, 2, true, 400*time.Millisecond)
		g.Feedback(Canary, api.Feedback{Task: "completed", Satisfaction: &one, Tokens: &hundred, CostUSD: &two})
		g.Feedback(Canary, api.Feedback{Task: "failed", Satisfaction: &two, ToolCalls: &api.ToolCalls{OK: 7, Error: 3}})
	}
	p.Gateways[1].Feedback(Canary, api.Feedback{SafetyViolation: "toxicity"})
	p.Gateways[1].Feedback(Canary, api.Feedback{SafetyViolation: "leak"})
	got := p.poll(all()...)
	p.wantRequests(got, 200, 25)
	for name, want := range map[string][2]analysis.Counts{
		"total_requests":       {{N: 200, X: 200}, {N: 25, X: 25}},
		"error_rate":           {{N: 200}, {N: 25, X: 4}},
		"task_completion_rate": {{}, {N: 4, X: 2}},
		"safety_violations":    {{N: 200}, {N: 25, X: 2}},
		"user_satisfaction":    {{}, {N: 4, X: 6}},
		"tokens_per_task":      {{}, {N: 2, X: 200}},
		"cost_per_task":        {{}, {N: 2, X: 4}},
		"tool_error_rate":      {{}, {N: 20, X: 6}},
	} {
		if diff := cmp.Diff(want, [2]analysis.Counts{got.Metrics[name].Stable, got.Metrics[name].Canary}); diff != "" {
			p.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, seconds := range map[string][2]float64{
		"p50_latency": {0.2, 0.4}, "p95_latency": {0.2, 0.4}, "p99_latency": {0.2, 0.4}, "time_to_first_token": {0.1, 0.2},
	} {
		s := got.Metrics[name]
		p.wantAround(name+" of stable", s.Bounds, s.Stable, 200, seconds[0])
		p.wantAround(name+" of canary", s.Bounds, s.Canary, 25, seconds[1])
	}
	p.wantZero(p.poll(all()...), all()...)
}

// wantAround wants all of n observations in the bucket that seconds belongs to.
func (p *poller) wantAround(what string, bounds []float64, c analysis.Counts, n, seconds float64) {
	p.Helper()
	if len(bounds) == 0 || len(c.Buckets) != len(bounds)+1 || c.N != n {
		p.Errorf("%s: %d buckets for %d bounds, N %v, want one more bucket than bounds and N %v", what, len(c.Buckets), len(bounds), c.N, n)
		return
	}
	low := 0.0
	for i, high := range bounds {
		if low >= high {
			p.Errorf("%s: bounds %v are not rising", what, bounds)
		}
		if want := low < seconds && seconds <= high; want != (c.Buckets[i] == n) || !want && c.Buckets[i] != 0 {
			p.Errorf("%s: %v of %v observations in (%v, %v]", what, c.Buckets[i], n, low, high)
		}
		low = high
	}
}

func repeated(p *poller) {
	p.poll("error_rate")
	p.Gateways[0].Serve(Canary, 10, true, time.Second)
	p.Publish()
	for range 3 {
		got, err := p.sample(p.request("error_rate"))
		if err != nil {
			p.Fatal(err)
		}
		p.wantRequests(got, 0, 10)
	}
	p.Gateways[0].Serve(Canary, 5, false, time.Second)
	got := p.poll("error_rate") // all the answers before were lost
	p.wantRequests(got, 0, 15)
	if want := (analysis.Counts{N: 15, X: 10}); !cmp.Equal(want, got.Metrics["error_rate"].Canary) {
		p.Errorf("error rate %+v, want %+v", got.Metrics["error_rate"].Canary, want)
	}
}

func addUp(p *poller) {
	p.poll(all()...)
	var sum rollout.Requests
	slow := 0.0
	for i := range 20 {
		p.Gateways[i%2].Serve(Stable, i, false, time.Second)
		p.Gateways[(i+1)%2].Serve(Canary, 2*i, i%3 == 0, time.Second)
		got := p.poll(all()...)
		sum = sum.Add(got.Requests)
		for _, n := range got.Metrics["p95_latency"].Canary.Buckets {
			slow += n
		}
	}
	if want := (rollout.Requests{Stable: 190, Canary: 380}); sum != want || slow != 380 {
		p.Errorf("polls add up to %+v with %v latencies of the canary, want %+v", sum, slow, want)
	}
}

func restart(p *poller) {
	p.Gateways[0].Serve(Canary, 50, true, time.Second)
	p.poll(all()...)
	p.Gateways[0].Restart()
	p.Gateways[0].Serve(Canary, 20, false, time.Second)
	p.Gateways[1].Serve(Canary, 1, true, time.Second)
	got := p.poll(all()...)
	p.wantRequests(got, 0, 21)
	if c := got.Metrics["error_rate"].Canary; c.X != 1 || c.N != 21 {
		p.Errorf("error rate %+v, want 1 of 21", c)
	}
	p.Gateways[0].Serve(Canary, 4, false, time.Second)
	p.wantRequests(p.poll(all()...), 0, 4)
}

func overtaken(p *poller) {
	p.Gateways[0].Serve(Canary, 10, false, time.Second)
	p.poll(all()...)
	p.Gateways[0].Restart()
	p.Gateways[0].Serve(Canary, 300, false, time.Second)
	got := p.poll(all()...)
	p.wantRequests(got, 0, 300)
	if n := got.Metrics["p50_latency"].Canary.N; n != 300 {
		p.Errorf("%v latencies, want 300", n)
	}
}

func askedLater(p *poller) {
	p.Gateways[0].Serve(Canary, 10, true, time.Second)
	p.poll("total_requests")
	p.poll("total_requests")
	p.Gateways[0].Serve(Canary, 10, true, time.Second)
	p.poll("error_rate", "p95_latency")
	p.Gateways[0].Serve(Canary, 7, true, time.Second)
	got := p.poll("error_rate", "p95_latency")
	p.wantRequests(got, 0, 7)
	if e, l := got.Metrics["error_rate"].Canary, got.Metrics["p95_latency"].Canary; e.X != 7 || e.N != 7 || l.N != 7 {
		p.Errorf("errors %+v, latencies %+v, want 7 of each", e, l.N)
	}
}

func nonsense(p *poller) {
	p.Publish()
	for what, change := range map[string]func(*metrics.Request){
		"unknown metric":    func(r *metrics.Request) { r.Metrics = []metrics.Metric{{Metric: analysis.Metric{Name: "mood"}}} },
		"agent by query":    func(r *metrics.Request) { r.Agent = `a",x="` },
		"no stable":         func(r *metrics.Request) { r.Stable = "" },
		"canary by pattern": func(r *metrics.Request) { r.Canary = ".*" },
		"broken cursor":     func(r *metrics.Request) { r.Cursor = json.RawMessage(`[1,2]`) },
		"ancient cursor":    func(r *metrics.Request) { r.Cursor = json.RawMessage(`{"v":-1}`) },
	} {
		request := p.request("error_rate")
		change(&request)
		_, err := p.sample(request)
		var rejected *metrics.Rejected
		if !errors.As(err, &rejected) {
			p.Errorf("%s: error %v, want *metrics.Rejected", what, err)
		}
	}
}

func busy(p *poller) {
	p.poll("error_rate")
	p.Fail(Busy)
	_, err := p.sample(p.request("error_rate"))
	var asked *metrics.Busy
	if !errors.As(err, &asked) || asked.RetryAfter != BusyFor {
		p.Errorf("error %v, want *metrics.Busy with %s", err, BusyFor)
	}
}

func faults(p *poller) {
	p.poll("error_rate")
	for _, fault := range []Fault{Broken, Hang} {
		p.Gateways[0].Serve(Canary, 10, false, time.Second)
		p.Publish()
		p.Fail(fault)
		_, err := p.sample(p.request("error_rate"))
		var rejected *metrics.Rejected
		if err == nil || errors.As(err, &rejected) {
			p.Errorf("%s: error %v, want a passing fault", fault, err)
		}
		p.Fail(Well)
	}
	p.wantRequests(p.poll("error_rate"), 0, 20)
}

func canceled(p *poller) {
	p.Publish()
	ctx, cancel := context.WithCancel(p.Context())
	cancel()
	if _, err := p.Provider.Sample(ctx, p.request("error_rate")); !errors.Is(err, context.Canceled) {
		p.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func small(p *poller) {
	for i := range 400 {
		for _, g := range p.Gateways {
			g.Serve(Stable, 300, i%7 == 0, time.Duration(i)*25*time.Millisecond)
			g.Serve(Canary, 30, i%5 == 0, time.Duration(i)*30*time.Millisecond)
		}
	}
	p.poll(all()...)
	p.Gateways[0].Restart()
	p.poll(all()...)
	if n := len(p.cursor); n > 6<<10 {
		p.Errorf("the cursor takes %d bytes for two gateways, want at most 6 KiB", n)
	}
	for _, g := range p.Gateways {
		if strings.Contains(string(p.cursor), strings.TrimPrefix(g.URL, "http://")) {
			p.Errorf("the cursor %s tells an address", p.cursor)
		}
	}
}
