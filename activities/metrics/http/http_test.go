package http_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	httpmetrics "github.com/aviary-rollouts/aviary/activities/metrics/http"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// happened is one request as an API for observability keeps it.
type happened struct {
	at      time.Time
	version string
	failed  bool
	cost    float64
}

// api is such an API: it answers from what happened, by time or in all.
type api struct {
	mu     sync.Mutex
	now    time.Time
	events []happened
	asked  []string
	fail   http.HandlerFunc
	since  time.Time // of totals: what it remembers; a restart forgets
}

func (a *api) add(version string, at time.Duration, n, failed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range n {
		a.events = append(a.events, happened{start.Add(at), version, i < failed, 0.5})
	}
}

func (a *api) pass(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = a.now.Add(d)
}

func (a *api) clock() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.URL.RequestURI())
	if a.fail != nil {
		a.fail(w, r)
		return
	}
	from, to := a.since, a.now
	if r.FormValue("from") != "" {
		var err1, err2 error
		from, err1 = time.Parse(time.RFC3339Nano, r.FormValue("from"))
		to, err2 = time.Parse(time.RFC3339Nano, r.FormValue("to"))
		if err := errors.Join(err1, err2); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	n, failed, cost := 0, 0, 0.0
	for _, e := range a.events {
		if e.version == r.FormValue("version") && e.at.After(from) && !e.at.After(to) {
			n++
			cost += e.cost
			if e.failed {
				failed++
			}
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"data": []any{map[string]any{"name": "calls", "total": n, "failed": failed}, map[string]any{"name": "cost", "sum": cost, "n": n}}, "depth": float64(n) / 2,
	})
}

const (
	ranged = "/stats?version={{.Version}}&agent={{ .Agent }}&from={{ .From }}&to={{.To}}"
	totals = "/stats?version={{.Version}}"
)

func definition(kind, query string, parts ...string) *rollout.Definition {
	d := &rollout.Definition{Kind: kind, Query: query}
	switch kind {
	case "mean":
		d.Sum, d.Count = parts[0], parts[1]
	case "value":
		d.Value = parts[0]
	default:
		d.Events, d.Trials = parts[0], parts[1]
	}
	return d
}

func request(query string) metrics.Request {
	return metrics.Request{Agent: "support", Stable: "v41", Canary: "v42", Metrics: []metrics.Metric{
		{Metric: analysis.Metric{Name: "cost_per_task", Kind: analysis.Mean}, Definition: definition("mean", query, "$.data[1].sum", "$.data[1].n")},
		{Metric: analysis.Metric{Name: "error_rate", Kind: analysis.Ratio},
			Definition: definition("ratio", query, "$.data[?(@.name == 'calls')].failed", "$.data[?(@.name == 'calls')].total")},
		{Metric: analysis.Metric{Name: "depth", Kind: analysis.Value}, Definition: definition("value", totals, "$.depth")},
	}}
}

func open(t *testing.T, a *api, s httpmetrics.Settings) *httpmetrics.Provider {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	s.URL, s.Now, s.Timeout = server.URL+"/v1", a.clock, 20*time.Second
	p, err := httpmetrics.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func sample(t *testing.T, p *httpmetrics.Provider, r metrics.Request) metrics.Samples {
	t.Helper()
	got, err := p.Sample(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wants(t *testing.T, what string, got metrics.Samples, stable, canary [2]float64) {
	t.Helper()
	s := got.Metrics["error_rate"]
	have := [2][2]float64{{s.Stable.X, s.Stable.N}, {s.Canary.X, s.Canary.N}}
	if diff := cmp.Diff([2][2]float64{stable, canary}, have); diff != "" {
		t.Errorf("%s: failed and all (-want +got):\n%s", what, diff)
	}
	if diff := cmp.Diff(rollout.Requests{Stable: stable[1], Canary: canary[1]}, got.Requests); diff != "" {
		t.Errorf("%s: requests (-want +got):\n%s", what, diff)
	}
	if m := got.Metrics["cost_per_task"].Stable; m.N != stable[1] || m.X != stable[1]/2 {
		t.Errorf("%s: cost %+v, want half of %v", what, m, stable[1])
	}
}

// TestSample: both ways of asking give what happened since the cursor, once, however often it is asked.
func TestSample(t *testing.T) {
	t.Parallel()
	for name, query := range map[string]string{"what happened in a time": ranged, "totals": totals} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &api{now: start}
			p := open(t, a, httpmetrics.Settings{})
			a.add("v41", -10*time.Second, 1000, 500) // before the position
			r := request(query)
			first := sample(t, p, r)
			wants(t, "the position", first, [2]float64{}, [2]float64{})
			r.Cursor = first.Cursor
			a.add("v41", time.Second, 90, 3)
			a.add("v42", 2*time.Second, 10, 1)
			a.pass(10 * time.Second)
			second := sample(t, p, r)
			wants(t, "a poll", second, [2]float64{3, 90}, [2]float64{1, 10})
			if v := second.Metrics["depth"].Canary; !v.HasValue || v.Value != 5 {
				t.Errorf("depth %+v, want 5 as it is now", v)
			}
			if again := sample(t, p, r); cmp.Diff(second.Metrics, again.Metrics) != "" {
				t.Errorf("the same cursor again: %+v", again.Metrics)
			}
			r.Cursor = second.Cursor
			wants(t, "no time has passed", sample(t, p, r), [2]float64{}, [2]float64{})
			a.pass(10 * time.Second)
			third := sample(t, p, r)
			wants(t, "nothing has happened", third, [2]float64{}, [2]float64{})
			r.Cursor = third.Cursor
			a.pass(-time.Hour) // the clock is set back
			wants(t, "a clock set back", sample(t, p, r), [2]float64{}, [2]float64{})
			if third.At != start.Add(20*time.Second) && !third.At.Equal(start.Add(20*time.Second)) {
				t.Errorf("as of %s", third.At)
			}
		})
	}
}

// TestTotalsBeginAgain: totals that fell have begun at zero again, and what they stand at has happened since.
func TestTotalsBeginAgain(t *testing.T) {
	t.Parallel()
	a := &api{now: start}
	p := open(t, a, httpmetrics.Settings{})
	a.add("v41", -time.Second, 100, 10)
	r := request(totals)
	r.Cursor = sample(t, p, r).Cursor
	a.mu.Lock()
	a.since = start
	a.mu.Unlock()
	a.add("v41", time.Second, 7, 2)
	a.pass(10 * time.Second)
	wants(t, "after a restart", sample(t, p, r), [2]float64{2, 7}, [2]float64{})
}

// TestDelay: what arrives late counts, as long as the delay covers it.
func TestDelay(t *testing.T) {
	t.Parallel()
	a := &api{now: start}
	p := open(t, a, httpmetrics.Settings{Delay: 30 * time.Second})
	r := request(ranged)
	r.Cursor = sample(t, p, r).Cursor // of 30 s ago
	a.pass(20 * time.Second)
	got := sample(t, p, r)
	wants(t, "too early", got, [2]float64{}, [2]float64{})
	r.Cursor = got.Cursor
	a.add("v41", 5*time.Second, 10, 1) // 15 s late
	a.pass(30 * time.Second)
	got = sample(t, p, r)
	wants(t, "late", got, [2]float64{1, 10}, [2]float64{})
	if !got.At.Equal(start.Add(20 * time.Second)) {
		t.Errorf("as of %s, want 30 s ago", got.At)
	}
}

// TestCatchesUp: after a long pause a poll asks for an hour, and the next ones for the rest.
func TestCatchesUp(t *testing.T) {
	t.Parallel()
	a := &api{now: start}
	p := open(t, a, httpmetrics.Settings{})
	r := request(ranged)
	r.Cursor = sample(t, p, r).Cursor
	a.add("v41", 30*time.Minute, 5, 0)
	a.add("v41", 90*time.Minute, 6, 0)
	a.pass(100 * time.Minute)
	one := sample(t, p, r)
	r.Cursor = one.Cursor
	two := sample(t, p, r)
	wants(t, "the first hour", one, [2]float64{0, 5}, [2]float64{})
	wants(t, "the rest", two, [2]float64{0, 6}, [2]float64{})
}

// TestAsks: one query per version even if several metrics need it, with nothing filled in that becomes more than a value.
func TestAsks(t *testing.T) {
	t.Parallel()
	a := &api{now: start}
	p := open(t, a, httpmetrics.Settings{Token: "hush"})
	var header http.Header
	a.fail = func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		http.Error(w, "", http.StatusTeapot)
	}
	r := request(ranged)
	r.Metrics = r.Metrics[:2]
	if _, err := p.Sample(t.Context(), r); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("error %v", err)
	}
	if header.Get("Authorization") != "Bearer hush" {
		t.Errorf("headers %v", header)
	}
	a = &api{now: start} // the other one may still be asked by what was given up
	sample(t, open(t, a, httpmetrics.Settings{Token: "hush"}), r)
	if len(a.asked) != 2 || !strings.HasPrefix(a.asked[0], "/v1/stats?version=v4") || !strings.Contains(a.asked[0], "from=2026-03-01T11%3A59%3A00Z") {
		t.Errorf("asked %q, want two queries below the address", a.asked)
	}
	for _, s := range []httpmetrics.Settings{{Token: "hush", TokenHeader: "X-Api-Key"}, {Token: "hush", User: "pk"}} {
		a.fail = func(w http.ResponseWriter, r *http.Request) { header = r.Header; _, _ = w.Write([]byte("{}")) }
		_, _ = open(t, a, s).Sample(t.Context(), r)
		user, password, _ := (&http.Request{Header: header}).BasicAuth()
		if header.Get("X-Api-Key") != "hush" && (user != "pk" || password != "hush") {
			t.Errorf("headers %v", header)
		}
	}
}

// TestAnswers: whatever the API answers, nothing counts as zero because it is not there, and no error tells a secret.
func TestAnswers(t *testing.T) {
	t.Parallel()
	body := func(failed, total string) string {
		return fmt.Sprintf(`{"data":[{"name":"calls","failed":%s,"total":%s},{"name":"cost","sum":1,"n":2}],"depth":1}`, failed, total)
	}
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   string
		says   string
		busy   bool
	}{
		"null":                 {200, nil, body("null", "3"), "is null, want a number", false},
		"text":                 {200, nil, body(`"three"`, "3"), `the text "three"`, false},
		"a list":               {200, nil, body("[1]", "3"), "is a list", false},
		"an object":            {200, nil, body("{}", "3"), "is an object", false},
		"a truth":              {200, nil, body("true", "3"), "is true", false},
		"negative":             {200, nil, body("-1", "3"), "want 0 or more", false},
		"more than all":        {200, nil, body("4", "3"), "more events than trials", false},
		"too large":            {200, nil, body("1e999", "3"), "no JSON", false},
		"twice":                {200, nil, `{"data":[{"name":"calls","failed":1,"total":2},{"sum":1,"n":2},{"name":"calls","failed":1,"total":2}],"depth":1}`, "names 2 values", false},
		"nothing":              {200, nil, `{}`, "names 0 values", false},
		"not an object":        {200, nil, `[]`, "names 0 values", false},
		"empty":                {200, nil, ``, "no JSON", false},
		"a page":               {200, nil, `<html>`, "no JSON", false},
		"endless":              {200, nil, `{"a":"` + strings.Repeat("x", 9<<20) + `"}`, "larger than allowed", false},
		"no right":             {401, nil, `{}`, "is the token", false},
		"no such path":         {404, nil, `{}`, "is the definition's query right", false},
		"elsewhere":            {302, http.Header{"Location": {"https://example.com/"}}, ``, "refuse a redirect", false},
		"broken":               {500, nil, `{}`, "500", false},
		"too many":             {429, http.Header{"Retry-After": {"7"}}, `{}`, "429", true},
		"in a while":           {503, http.Header{"Retry-After": {"7"}}, `{}`, "503", true},
		"down, nobody knows":   {503, nil, `{}`, "503", false},
		"no content is no 0":   {204, nil, ``, "204", false},
		"observations of none": {200, nil, `{"data":[{"name":"calls","failed":0,"total":0},{"sum":1,"n":0}],"depth":1}`, "of no observations", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &api{now: start}
			p := open(t, a, httpmetrics.Settings{Token: "hush-hush"})
			r := request(ranged)
			r.Cursor = sample(t, p, r).Cursor
			a.pass(time.Minute)
			a.mu.Lock()
			a.fail = func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range c.header {
					w.Header()[k] = v
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}
			a.mu.Unlock()
			_, err := p.Sample(t.Context(), r)
			var busy *metrics.Busy
			var final *metrics.Rejected
			if err == nil || !strings.Contains(err.Error(), c.says) || errors.As(err, &busy) != c.busy || errors.As(err, &final) {
				t.Errorf("error %v, want a passing one that says %q, busy: %v", err, c.says, c.busy)
			}
			if err != nil && (strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "/v1")) {
				t.Errorf("error %v tells too much", err)
			}
		})
	}
}

// TestRejects is what can never be answered.
func TestRejects(t *testing.T) {
	t.Parallel()
	a := &api{now: start}
	p := open(t, a, httpmetrics.Settings{})
	for name, change := range map[string]func(*metrics.Request){
		"no definition":         func(r *metrics.Request) { r.Metrics[0].Definition = nil },
		"no path":               func(r *metrics.Request) { r.Metrics[0].Definition.Sum = "$.[" },
		"another host":          func(r *metrics.Request) { r.Metrics[0].Definition.Query = "@evil.example/stats?{{.From}}{{.To}}" },
		"no template":           func(r *metrics.Request) { r.Metrics[0].Definition.Query = "/{{" },
		"a quantile":            func(r *metrics.Request) { r.Metrics[0].Kind = analysis.Quantile },
		"no name":               func(r *metrics.Request) { r.Agent = "../x" },
		"a cursor that is none": func(r *metrics.Request) { r.Cursor = json.RawMessage(`{"v":1}`) },
	} {
		r := request(ranged)
		change(&r)
		_, err := p.Sample(t.Context(), r)
		var final *metrics.Rejected
		if !errors.As(err, &final) {
			t.Errorf("%s: error %v, want *metrics.Rejected", name, err)
		}
	}
	r := request(ranged)
	r.Cursor = json.RawMessage(`{"v":99,"at":"noon"}`)
	if _, err := p.Sample(t.Context(), r); !errors.Is(err, metrics.ErrNewer) {
		t.Errorf("error %v, want %v", err, metrics.ErrNewer)
	}
	for _, address := range []string{"", "ftp://x", "http://"} {
		if _, err := httpmetrics.New(httpmetrics.Settings{URL: address}); err == nil {
			t.Errorf("address %q is taken", address)
		}
	}
}

// TestTotalsAskedForLater: totals that a cursor does not know are a beginning, no growth.
func TestTotalsAskedForLater(t *testing.T) {
	t.Parallel()
	a := &api{now: start}
	p := open(t, a, httpmetrics.Settings{})
	r := request(totals)
	all := r.Metrics
	r.Metrics = all[2:] // a value, which has no totals
	r.Cursor = sample(t, p, r).Cursor
	a.add("v41", 5*time.Second, 10, 1)
	a.pass(10 * time.Second)
	r.Metrics = all
	got := sample(t, p, r)
	wants(t, "asked for later", got, [2]float64{}, [2]float64{})
	r.Cursor = got.Cursor
	a.add("v41", 15*time.Second, 4, 2)
	a.pass(10 * time.Second)
	wants(t, "from then on", sample(t, p, r), [2]float64{2, 4}, [2]float64{})
}
