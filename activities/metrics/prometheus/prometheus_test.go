package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	client "github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/metrics/metricstest"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// scraper brings what real gateways export into the store, every ten seconds of its own clock.
type scraper struct {
	t     *testing.T
	store *store

	mu  sync.Mutex
	now int64
}

func (s *scraper) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.UnixMilli(s.now)
}

func (s *scraper) scrape(gateways []*metricstest.Gateway) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += 10_000
	for i, g := range gateways {
		ts := s.now - int64(1000*(i+1)) // each target at its own moment
		router, lives := g.Router()
		registry := client.NewRegistry()
		registry.MustRegister(router.Collector())
		families, err := registry.Gather()
		if err != nil {
			s.t.Fatal(err)
		}
		target := model.Metric{"job": "gateway", "instance": model.LabelValue(strings.TrimPrefix(g.URL, "http://"))}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				s.append(target, family.GetName(), m, ts)
			}
		}
		s.series(target, startTime, nil, ts, float64(t0/1000+int64(lives*100)))
	}
}

// append is what Prometheus makes of one exported metric.
func (s *scraper) append(target model.Metric, name string, m *dto.Metric, ts int64) {
	switch {
	case m.Counter != nil:
		s.series(target, name, m, ts, m.GetCounter().GetValue())
	case m.Gauge != nil:
		s.series(target, name, m, ts, m.GetGauge().GetValue())
	case m.Summary != nil:
		s.series(target, name+"_sum", m, ts, m.GetSummary().GetSampleSum())
		s.series(target, name+"_count", m, ts, float64(m.GetSummary().GetSampleCount()))
	case m.Histogram != nil:
		h := m.GetHistogram()
		s.series(target, name+"_sum", m, ts, h.GetSampleSum())
		s.series(target, name+"_count", m, ts, float64(h.GetSampleCount()))
		for _, b := range h.GetBucket() {
			s.bucket(target, name, m, ts, b.GetUpperBound(), float64(b.GetCumulativeCount()))
		}
		s.bucket(target, name, m, ts, math.Inf(1), float64(h.GetSampleCount()))
	}
}

func (s *scraper) bucket(target model.Metric, name string, m *dto.Metric, ts int64, bound, value float64) {
	with := target.Clone()
	with["le"] = model.LabelValue(strconv.FormatFloat(bound, 'g', -1, 64))
	s.series(with, name+"_bucket", m, ts, value)
}

func (s *scraper) series(target model.Metric, name string, m *dto.Metric, ts int64, value float64) {
	labels := target.Clone()
	labels["__name__"] = model.LabelValue(name)
	for _, l := range m.GetLabel() {
		labels[model.LabelName(l.GetName())] = model.LabelValue(l.GetValue())
	}
	s.store.add(labels, ts, value, true)
}

func newProvider(t *testing.T, st *store, now func() time.Time) *Provider {
	t.Helper()
	p, err := New(Settings{
		URL: strings.Replace(st.url, "http://", "http://reader:hunter2@", 1), Token: "bearer-secret", Timeout: 5 * time.Second, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConformance(t *testing.T) {
	t.Parallel()
	metricstest.Run(t, func(t *testing.T) metricstest.Source {
		st := newStore(t)
		s := &scraper{t: t, store: st, now: t0}
		gateways := [2]*metricstest.Gateway{metricstest.NewGateway(t), metricstest.NewGateway(t)}
		over := make(chan struct{})
		t.Cleanup(func() { close(over) })
		return metricstest.Source{
			Provider: newProvider(t, st, s.clock), Gateways: gateways, Secrets: []string{"hunter2", "bearer-secret"},
			Publish: func() { s.scrape(gateways[:]) },
			Fail: func(f metricstest.Fault) {
				st.fail(map[metricstest.Fault]http.HandlerFunc{
					metricstest.Busy: func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("Retry-After", strconv.Itoa(int(metricstest.BusyFor.Seconds())))
						w.WriteHeader(http.StatusTooManyRequests)
					},
					metricstest.Broken: func(w http.ResponseWriter, _ *http.Request) { apiError(w, 503, "timeout", "query timed out") },
					metricstest.Hang: func(_ http.ResponseWriter, r *http.Request) {
						select {
						case <-over:
						case <-r.Context().Done():
						}
					},
				}[f])
			},
		}
	})
}

func TestOneQueryOfOneMomentPerPoll(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	s := &scraper{t: t, store: st, now: t0}
	g := metricstest.NewGateway(t)
	p := newProvider(t, st, s.clock)
	r := metrics.Request{Agent: metricstest.Agent, Stable: metricstest.Stable, Canary: metricstest.Canary}
	for _, m := range analysis.Presets() {
		r.Metrics = append(r.Metrics, metrics.Metric{Metric: m})
	}
	const polls = 4
	for range polls {
		g.Serve(metricstest.Stable, 10, false, time.Second)
		s.scrape([]*metricstest.Gateway{g})
		got, err := p.Sample(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		r.Cursor = got.Cursor
	}
	if n := st.asked("agent_"); n != polls {
		t.Errorf("%d queries for counters in %d polls, want one each", n, polls)
	}
	if n := st.asked(startTime); n != polls-1 {
		t.Errorf("%d queries for start times, want one for each poll after the first", n)
	}
}

func defined(name string, d rollout.Definition) metrics.Request {
	return metrics.Request{
		Agent: "a", Stable: "v1", Canary: "v2",
		Metrics: []metrics.Metric{{Metric: analysis.Metric{Name: name, Kind: analysis.Kind(d.Kind)}, Definition: &d}},
	}
}

func TestDefinitions(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	now := t0
	p := newProvider(t, st, func() time.Time { return time.UnixMilli(now) })
	series := func(name, version, extra string, value float64) {
		m := model.Metric{"__name__": model.LabelValue(name), "instance": "x", "agent": "a", "version": model.LabelValue(version)}
		if label, v, ok := strings.Cut(extra, "="); ok {
			m[model.LabelName(label)] = model.LabelValue(v)
		}
		st.add(m, now, value, true)
	}
	for i := range 2 {
		now += 10_000
		f := float64(i)
		series("jobs", "v1", "state=ok", 100*f)
		series("jobs", "v1", "state=bad", 10*f)
		series("jobs", "v2", "state=bad", 3*f)
		series("jobs", "v3", "state=bad", 1000*f)
		series("sizes_sum", "v2", "", -12*f)
		series("sizes_count", "v2", "", 4*f)
		series("wait_bucket", "v2", "le=0.5", 2*f)
		series("wait_bucket", "v2", "le=1", 5*f)
		series("wait_bucket", "v2", "le=+Inf", 6*f)
		st.add(model.Metric{"__name__": startTime, "instance": "x"}, now, 1, true)
	}
	for name, tt := range map[string]struct {
		d    rollout.Definition
		want analysis.Sample
	}{
		"ratio": {
			rollout.Definition{Kind: "ratio", Events: `jobs{state="bad"}`, Trials: `jobs`},
			analysis.Sample{Stable: analysis.Counts{N: 110, X: 10}, Canary: analysis.Counts{N: 3, X: 3}},
		},
		"count with a pattern": {
			rollout.Definition{Kind: "count", Events: `jobs{state!~"o.", instance='x'}`, Trials: "jobs{}"},
			analysis.Sample{Stable: analysis.Counts{N: 110, X: 10}, Canary: analysis.Counts{N: 3, X: 3}},
		},
		"mean of what may be below zero": {
			rollout.Definition{Kind: "mean", Sum: "sizes_sum", Count: "sizes_count"},
			analysis.Sample{Canary: analysis.Counts{N: 4, X: -12}},
		},
		"quantile": {
			rollout.Definition{Kind: "quantile", Quantile: 0.9, Histogram: "wait"},
			analysis.Sample{Canary: analysis.Counts{N: 6, Buckets: []float64{2, 3, 1}}, Bounds: []float64{0.5, 1}},
		},
	} {
		r := defined("own", tt.d)
		now = t0 + 10_001
		first, err := p.Sample(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.Cursor = first.Cursor
		now = t0 + 20_001
		got, err := p.Sample(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, got.Metrics["own"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	p := newProvider(t, st, func() time.Time { return time.UnixMilli(t0) })
	vector := func(values ...string) string {
		var all []string
		for i, v := range values {
			all = append(all, fmt.Sprintf(`{"metric":{"i":"%d"},"value":[1,%q]}`, i, v))
		}
		return `{"resultType":"vector","result":[` + strings.Join(all, ",") + `]}`
	}
	for v, answers := range map[string][2]string{
		"one":  {vector("7"), vector()},
		"nan":  {vector("NaN"), `{"resultType":"scalar","result":[1,"3"]}`},
		"many": {vector("7", "8"), vector("7")},
		"str":  {`{"resultType":"string","result":[1,"x"]}`, vector()},
	} {
		st.canned[v+`{agent="a",version="v1"}[60000ms]`] = answers[0]
		st.canned[v+`{agent="a",version="v2"}[60000ms]`] = answers[1]
	}
	for v, want := range map[string]analysis.Sample{
		"one": {Stable: analysis.Counts{Value: 7, HasValue: true}},
		"nan": {Canary: analysis.Counts{Value: 3, HasValue: true}},
	} {
		r := defined("own", rollout.Definition{Kind: "value", Query: v + `{agent="{{.Agent}}",version="{{.Version}}"}[{{.Window}}]`})
		got, err := p.Sample(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Metrics["own"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", v, diff)
		}
	}
	for _, query := range []string{`many{agent="a",version="{{.Version}}"}[60000ms]`, `str{agent="a",version="{{.Version}}"}[60000ms]`, `{{.Secret}}`, `)nonsense`} {
		_, err := p.Sample(t.Context(), defined("own", rollout.Definition{Kind: "value", Query: query}))
		var rejected *metrics.Rejected
		if !errors.As(err, &rejected) {
			t.Errorf("%s: error %v, want *metrics.Rejected", query, err)
		}
	}
}

func TestAnswersThatFail(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault http.HandlerFunc
		want  string
	}{
		"bad query":         {func(w http.ResponseWriter, _ *http.Request) { apiError(w, 400, "bad_data", "parse error") }, "rejected"},
		"can't be executed": {func(w http.ResponseWriter, _ *http.Request) { apiError(w, 422, "execution", "many-to-many") }, "rejected"},
		"timeout":           {func(w http.ResponseWriter, _ *http.Request) { apiError(w, 503, "timeout", "slow") }, "passing"},
		"internal":          {func(w http.ResponseWriter, _ *http.Request) { apiError(w, 500, "internal", "disk") }, "passing"},
		"no permission":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "passing"},
		"a proxy's page":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "passing"},
		"too large":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 40<<20)) }, "passing"},
		"of another kind": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
		}, "passing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			st.fail(tt.fault)
			p := newProvider(t, st, time.Now)
			_, err := p.Sample(t.Context(), defined("own", rollout.Definition{Kind: "ratio", Events: "a", Trials: "b"}))
			var rejected *metrics.Rejected
			got := "passing"
			switch {
			case err == nil:
				got = "ok"
			case errors.As(err, &rejected):
				got = "rejected"
			}
			if got != tt.want || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "reader") {
				t.Errorf("%s (%v), want %s and no secrets", got, err, tt.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "prometheus:9090", "ftp://user:hunter2@host", "http://user:hunter2@host:port"} {
		if _, err := New(Settings{URL: address}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: error %v, want one without secrets", address, err)
		}
	}
}

// The token goes along, and the credentials in the address too where there is no token.
func TestCredentials(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{"tok": "Bearer tok", "": "Basic cmVhZGVyOmh1bnRlcjI="} {
		st := newStore(t)
		got := make(chan string, 10)
		st.fail(func(w http.ResponseWriter, r *http.Request) {
			got <- r.Header.Get("Authorization")
			answer(w, "matrix", []any{})
		})
		p, err := New(Settings{URL: strings.Replace(st.url, "http://", "http://reader:hunter2@", 1), Token: token})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Sample(t.Context(), defined("own", rollout.Definition{Kind: "ratio", Events: "a", Trials: "b"})); err != nil {
			t.Fatal(err)
		}
		if auth := <-got; auth != want {
			t.Errorf("authorization %q, want %q", auth, want)
		}
	}
}

func TestCursorIsJSON(t *testing.T) {
	t.Parallel()
	c := &cursor{at: t0}
	raw, err := c.encode()
	if err != nil || !json.Valid(raw) {
		t.Errorf("%s, %v", raw, err)
	}
}
