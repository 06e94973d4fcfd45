package router

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/aviary-rollouts/aviary/router/api"
)

func counterOf(t testing.TB, r *Router, version string) api.Counter {
	t.Helper()
	c, err := r.Counters(agent)
	if err != nil {
		t.Fatal(err)
	}
	return c.Versions[version]
}

func ptr(v float64) *float64 { return &v }

func TestFeedbackCounts(t *testing.T) {
	t.Parallel()
	r, clock := newTestRouter(t)
	mustSet(t, r, canaryRoute(10000, 1))
	d := mustDecide(t, r, Request{Key: "talk-1"})
	pin := string(r.AppendPin(nil, &d))
	r.Served(&d, "talk-1")
	clock.advance(30 * 24 * time.Hour) // feedback of another day: the pin has expired

	for _, f := range []api.Feedback{
		{Version: "v42", Task: "completed", Tokens: ptr(100), CostUSD: ptr(0.25), ID: "1"},
		{Version: "v42", Task: "completed", Tokens: ptr(100), CostUSD: ptr(0.25), ID: "1"}, // again
		{Pin: pin, Task: "failed", Satisfaction: ptr(4)},
		{Conversation: "talk-1", Satisfaction: ptr(0), SafetyViolation: "toxicity", ToolCalls: &api.ToolCalls{OK: 3, Error: 1}},
		{Version: "v42", SafetyViolation: "Not A Name"},
	} {
		f.Agent = agent
		got, err := r.Feedback(f)
		if err != nil || got.Version != "v42" {
			t.Fatalf("Feedback(%+v) = %+v, %v", f, got, err)
		}
	}
	got := counterOf(t, r, "v42")
	got.Latency, got.TTFB = nil, nil
	want := api.Counter{
		Conversations: 1, Tasks: api.Tasks{Completed: 1, Failed: 1}, SafetyViolations: map[string]int64{"toxicity": 1, "other": 1},
		Satisfaction: api.Mean{Sum: 4, Count: 2}, Tokens: api.Mean{Sum: 100, Count: 1}, CostUSD: api.Mean{Sum: 0.25, Count: 1},
		ToolCalls: api.ToolCalls{OK: 3, Error: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if n := counterOf(t, r, "v41"); n.Tasks != (api.Tasks{}) {
		t.Errorf("another version got %+v", n.Tasks)
	}
}

func TestFeedbackRefuses(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	for name, tt := range map[string]struct {
		f    api.Feedback
		code string
	}{
		"no version":           {api.Feedback{Agent: agent, Task: "failed"}, api.CodeInvalid},
		"nothing to count":     {api.Feedback{Agent: agent, Version: "v41", ID: "1"}, api.CodeInvalid},
		"an unknown outcome":   {api.Feedback{Agent: agent, Version: "v41", Task: "finished"}, api.CodeInvalid},
		"two versions":         {api.Feedback{Agent: agent, Version: "v41", Conversation: "x"}, api.CodeInvalid},
		"unknown agent":        {api.Feedback{Agent: "nobody", Version: "v41", Task: "failed"}, api.CodeUnknownAgent},
		"unknown version":      {api.Feedback{Agent: agent, Version: "v99", Task: "failed"}, api.CodeUnknownVersion},
		"unknown conversation": {api.Feedback{Agent: agent, Conversation: "x", Task: "failed"}, api.CodeUnknownConversation},
		"forged pin":           {api.Feedback{Agent: agent, Pin: "bwFhxxxxxxxx"}, api.CodeInvalid},
		"negative":             {api.Feedback{Agent: agent, Version: "v41", Tokens: ptr(-1)}, api.CodeInvalid},
		"not a number":         {api.Feedback{Agent: agent, Version: "v41", CostUSD: ptr(math.NaN())}, api.CodeInvalid},
		"infinite":             {api.Feedback{Agent: agent, Version: "v41", Satisfaction: ptr(math.Inf(1))}, api.CodeInvalid},
		"negative tool calls":  {api.Feedback{Agent: agent, Version: "v41", ToolCalls: &api.ToolCalls{OK: -1}}, api.CodeInvalid},
		"long id":              {api.Feedback{Agent: agent, Version: "v41", ID: strings.Repeat("x", 513)}, api.CodeInvalid},
	} {
		if _, err := r.Feedback(tt.f); refusalCode(err) != tt.code {
			t.Errorf("%s: error %v, want code %s", name, err, tt.code)
		}
	}
}

func TestKindsAreBounded(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	for i := range 100 {
		if _, err := r.Feedback(api.Feedback{Agent: agent, Version: "v41", SafetyViolation: fmt.Sprintf("kind-%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	kinds := counterOf(t, r, "v41").SafetyViolations
	sum := int64(0)
	for _, n := range kinds {
		sum += n
	}
	if len(kinds) != maxKinds+1 || kinds[Other] != 80 || sum != 100 {
		t.Errorf("%d kinds, %d other, %d in all: want %d, 80, 100", len(kinds), kinds[Other], sum, maxKinds+1)
	}
}

func TestMemoriesAreBounded(t *testing.T) {
	t.Parallel()
	m, ids := newRecall(5), newIDSet(10)
	for i := range uint64(1000) {
		if m.set(i, memo{version: "v1"}) || !m.set(i, memo{version: "v2"}) || !ids.add(i) || ids.add(i) {
			t.Fatalf("%d: news must be news once", i)
		}
		for j := max(i, 4) - 4; j <= i; j++ {
			if v, ok := m.get(j); !ok || v.version != "v2" {
				t.Fatalf("%d is forgotten at %d", j, i)
			}
		}
	}
	if n := len(m.new) + len(m.old); n > 10 {
		t.Errorf("%d conversations remembered, want at most 10", n)
	}
	if n := len(ids.new) + len(ids.old); n > 10 {
		t.Errorf("%d ids remembered, want at most 10", n)
	}
}

func TestHeaderFeedback(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		header map[string]string
		want   api.Feedback
		ok     bool
	}{
		"none": {nil, api.Feedback{}, false},
		"all": {map[string]string{HeaderTask: "completed", HeaderSafety: "pii", HeaderSatisfaction: "4.5", HeaderTokens: "120", HeaderCost: "0.02", HeaderToolCalls: "ok=3, error=1"},
			api.Feedback{Task: "completed", SafetyViolation: "pii", Satisfaction: ptr(4.5), Tokens: ptr(120), CostUSD: ptr(0.02), ToolCalls: &api.ToolCalls{OK: 3, Error: 1}}, true},
		"nonsense": {map[string]string{HeaderSatisfaction: "NaN", HeaderTokens: "-1", HeaderCost: "Inf", HeaderToolCalls: "ok=x"}, api.Feedback{}, false},
		"half":     {map[string]string{HeaderTokens: "12", HeaderToolCalls: "ok=1,maybe=2"}, api.Feedback{Tokens: ptr(12)}, true},
	} {
		h := http.Header{}
		for k, v := range tt.header {
			h.Set(k, v)
		}
		got, ok := HeaderFeedback(h)
		if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok {
			t.Errorf("%s: ok %t (-want +got):\n%s", name, ok, diff)
		}
	}
}

func TestConversationsCountOnce(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	mustSet(t, r, canaryRoute(10000, 1))
	var pin string
	for turn := range 3 {
		d := mustDecide(t, r, Request{Key: "talk", Pin: pin})
		r.Served(&d, "talk")
		if turn == 0 {
			pin = string(r.AppendPin(nil, &d))
		}
	}
	d := mustDecide(t, r, Request{Key: "another"}) // a client that never echoes its pin
	r.Served(&d, "another")
	r.Served(&d, "another")
	mustSet(t, r, rollbackRoute(2, ""))
	d = mustDecide(t, r, Request{Key: "talk", Pin: pin})
	r.Served(&d, "talk")
	if a, b := counterOf(t, r, "v41").Conversations, counterOf(t, r, "v42").Conversations; a != 0 || b != 2 {
		t.Errorf("conversations: stable %d, canary %d; want 0, 2: the one that came back began on the canary", a, b)
	}
}

// TestCountedConversationsDivideAsTheWeight: those that go on while the weight rises, without a pin, are moved and not begun. Counted as
// the canary's they would look like a share far above its weight.
func TestCountedConversationsDivideAsTheWeight(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	serve := func(from, until int) {
		for i := from; i < until; i++ {
			key := fmt.Sprintf("talk-%d", i)
			d := mustDecide(t, r, Request{Key: key})
			r.Served(&d, key)
		}
	}
	serve(0, 2000)
	mustSet(t, r, canaryRoute(1000, 1))
	serve(0, 2000) // go on
	if n := counterOf(t, r, "v42").Conversations; n != 0 {
		t.Errorf("%d conversations began on the canary, but they only came to it", n)
	}
	serve(2000, 4000)
	stable, canary := counterOf(t, r, "v41").Conversations, counterOf(t, r, "v42").Conversations
	if stable+canary != 4000 || canary < 140 || canary > 260 { // 200, give or take 4.5 standard deviations of 13.4
		t.Errorf("conversations: stable %d, canary %d; want 4000 together, about 200 of the canary", stable, canary)
	}
}

func TestCountersAreExact(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	s := r.agents[agent].versions["v41"].stats
	for _, o := range []Outcome{
		{Code: 200, Latency: 500 * time.Microsecond, TTFB: time.Microsecond},
		{Code: 200, Latency: time.Millisecond, TTFB: time.Millisecond}, // the bound itself is in its bucket
		{Code: 503, Failed: true, Latency: 10 * time.Minute, TTFB: time.Second},
		{Code: CodeClientGone, Latency: 2 * time.Second, TTFB: time.Second},
		{Code: 7, Latency: 2 * time.Second, TTFB: time.Second},
	} {
		s.Request(o)
	}
	c, err := r.Counters(agent)
	if err != nil {
		t.Fatal(err)
	}
	v := c.Versions["v41"]
	if v.Requests != 5 || v.Errors != 1 || len(v.Latency) != len(c.Bounds)+1 || len(v.TTFB) != len(c.Bounds)+1 {
		t.Fatalf("counter %+v", v)
	}
	if v.Latency[0] != 2 || v.Latency[len(v.Latency)-1] != 1 {
		t.Errorf("latency %v", v.Latency)
	}
	i, _ := slices.BinarySearch(c.Bounds, 2.0)
	if v.Latency[i] != 2 {
		t.Errorf("two seconds belong to the bucket up to %v s: %v", c.Bounds[i], v.Latency)
	}
	if c.Shares["v41"].Requests != 1 || c.Instance != r.Instance() {
		t.Errorf("shares %v, instance %q", c.Shares, c.Instance)
	}
	b := Bounds()
	if b[0] != 0.001 || b[len(b)-1] != 120 || !slices.IsSorted(b) {
		t.Errorf("bounds %v", b)
	}
	for i := range len(b) - 2 {
		if q := b[i+1] / b[i]; q < 1.098 || q > 1.102 {
			t.Errorf("bounds %v and %v: factor %v, want about 1.1", b[i], b[i+1], q)
		}
	}
}

func TestPrometheusSaysTheSame(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	mustSet(t, r, canaryRoute(2500, 1))
	s := r.agents[agent].versions["v42"].stats
	s.Request(Outcome{Code: 200, Latency: time.Second, TTFB: time.Millisecond})
	s.Request(Outcome{Code: 502, Failed: true, Latency: time.Second, TTFB: time.Millisecond})
	s.Conversation()
	s.Feedback(api.Feedback{Task: "failed", SafetyViolation: "pii", Satisfaction: ptr(3), Tokens: ptr(7), CostUSD: ptr(0.5), ToolCalls: &api.ToolCalls{OK: 2, Error: 1}})

	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			flatten(got, f.GetName(), m)
		}
	}
	for series, want := range map[string]float64{
		"agent_requests_total support-agent 200 v42":               1,
		"agent_requests_total support-agent 502 v42":               1,
		"agent_requests_total support-agent 200 v41":               0,
		"agent_request_duration_seconds_count support-agent v42":   2,
		"agent_request_duration_seconds_native support-agent v42":  3,
		"agent_time_to_first_byte_seconds_count support-agent v42": 2,
		"agent_conversations_total support-agent v42":              1,
		"agent_tasks_total support-agent failed v42":               1,
		"agent_tasks_total support-agent completed v42":            0,
		"agent_safety_violations_total support-agent pii v42":      1,
		"agent_safety_violations_total support-agent other v42":    0,
		"agent_satisfaction_sum support-agent v42":                 3,
		"agent_satisfaction_count support-agent v42":               1,
		"agent_task_tokens_sum support-agent v42":                  7,
		"agent_task_cost_usd_sum support-agent v42":                0.5,
		"agent_tool_calls_total support-agent ok v42":              2,
		"agent_tool_calls_total support-agent error v42":           1,
		"aviary_router_canary_weight support-agent":                0.25,
		"aviary_router_lease_expired support-agent":                0,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s = %v, %t; want %v", series, v, ok, want)
		}
	}
}

// flatten notes the numbers of m under its name and its labels' values, which come sorted by label.
func flatten(out map[string]float64, name string, m *dto.Metric) {
	labels := ""
	for _, l := range m.Label {
		labels += " " + l.GetValue()
	}
	switch {
	case m.Counter != nil:
		out[name+labels] = m.Counter.GetValue()
	case m.Gauge != nil:
		out[name+labels] = m.Gauge.GetValue()
	case m.Summary != nil:
		out[name+"_sum"+labels], out[name+"_count"+labels] = m.Summary.GetSampleSum(), float64(m.Summary.GetSampleCount())
	case m.Histogram != nil:
		out[name+"_count"+labels] = float64(m.Histogram.GetSampleCount())
		out[name+"_native"+labels] = float64(m.Histogram.GetSchema())
	}
}
