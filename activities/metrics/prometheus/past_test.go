package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
)

// ledger is a Sink that adds up by unit and metric, and remembers moments.
type ledger struct {
	n, x    map[string]float64
	moments map[string][]int64 // seconds, of trials
}

func newLedger() *ledger {
	return &ledger{n: map[string]float64{}, x: map[string]float64{}, moments: map[string][]int64{}}
}

func (l *ledger) Add(at time.Time, unit, metric string, n, x float64) {
	key := unit + "/" + metric
	if n > 0 {
		l.n[key] += n
		l.moments[key] = append(l.moments[key], at.Unix())
	}
	if x != 0 {
		l.x[key] += x
	}
}

func (l *ledger) AddBucket(at time.Time, unit, metric string, bound, n float64) {
	l.Add(at, unit, fmt.Sprintf("%s le %g", metric, bound), n, 0)
}

// pod is a scraped process that counts requests, errors, durations and scores of v1.
type pod struct {
	store   *store
	name    string
	began   int64 // milliseconds
	told    bool  // exports its start time
	values  map[string]float64
	scraped map[string]model.Metric
}

func newPod(s *store, name string, began int64, told bool) *pod {
	return &pod{store: s, name: name, began: began, told: told, values: map[string]float64{}, scraped: map[string]model.Metric{}}
}

func (p *pod) labels(name string, more ...string) model.Metric {
	m := model.Metric{"__name__": model.LabelValue(name), "job": "gateway", "instance": model.LabelValue(p.name + ":80"), "pod": model.LabelValue(p.name)}
	for i := 0; i < len(more); i += 2 {
		m[model.LabelName(more[i])] = model.LabelValue(more[i+1])
	}
	return m
}

func (p *pod) count(by float64, name string, more ...string) {
	labels := p.labels(name, append([]string{"agent", "a", "version", "v1"}, more...)...)
	p.values[labels.String()] += by
	p.scraped[labels.String()] = labels
}

func (p *pod) scrape(ts int64) {
	for key, v := range p.values {
		p.store.add(p.scraped[key], ts, v, true)
	}
	if p.told {
		p.store.add(p.labels(startTime), ts, float64(p.began)/1000, true)
	}
}

func (p *pod) restart(ts int64) { p.began, p.values = ts, map[string]float64{} }

const minute = int64(60_000)

func pastOf(t *testing.T, s *store, label string, from, to int64, names ...string) (*ledger, PastReport, error) {
	t.Helper()
	p, err := New(Settings{URL: s.url})
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger()
	r := PastRequest{Agent: "a", Version: "v1", From: time.UnixMilli(from), To: time.UnixMilli(to), UnitLabel: label}
	for _, name := range names {
		m, _ := analysis.Preset(name)
		r.Metrics = append(r.Metrics, metrics.Metric{Metric: m})
	}
	report, err := p.Past(t.Context(), r, l)
	return l, report, err
}

func TestPastCountsOverResets(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("start times %t", told), func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			old, fresh := newPod(s, "old", -1000*minute, told), newPod(s, "fresh", 30*minute, told)
			old.count(5000, "agent_requests_total", "code", "200") // long before
			for m := int64(1); m <= 120; m++ {
				old.count(10, "agent_requests_total", "code", "200")
				if m%20 == 0 {
					old.count(1, "agent_requests_total", "code", "503") // a new series at minute 20
				}
				if m == 60 {
					old.restart(60 * minute)
					old.count(7, "agent_requests_total", "code", "200")
				}
				old.scrape(m * minute)
				if m > 30 {
					fresh.count(3, "agent_requests_total", "code", "200")
					fresh.scrape(m * minute)
				}
			}
			l, report, err := pastOf(t, s, "pod", 0, 120*minute, "total_requests", "error_rate")
			if err != nil {
				t.Fatal(err)
			}
			// Of the old pod: 58 minutes of 10 from the first scrape to that before the restart, which loses minute 60's, 7, then 60 of 10. Errors
			// of minutes 20 and 40, of 80, 100 and 120. Of the fresh one, its first scrape counts only where its start is known.
			old200, errs, freshN := 580.0+7+600, 5.0, 89.0*3
			if told {
				freshN += 3
			}
			want := map[string]float64{
				"old/total_requests": old200 + errs, "old/error_rate": old200 + errs, "fresh/total_requests": freshN, "fresh/error_rate": freshN,
			}
			if diff := cmp.Diff(want, l.n); diff != "" {
				t.Errorf("trials (-want +got):\n%s", diff)
			}
			if l.x["old/error_rate"] != errs || l.x["fresh/error_rate"] != 0 {
				t.Errorf("errors %v, want %v of the old one", l.x, errs)
			}
			if report.Resets == 0 || report.Gaps != 0 {
				t.Errorf("report %+v, want resets and no gaps", report)
			}
		})
	}
}

func TestPastLeavesGapsOut(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	p := newPod(s, "p", -minute, true)
	for m := int64(1); m <= 60; m++ {
		p.count(1, "agent_requests_total", "code", "200")
		if m <= 20 || m >= 40 {
			p.scrape(m * minute)
		}
	}
	l, report, err := pastOf(t, s, "", 0, 60*minute, "total_requests")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.n["/total_requests"]; got != 19+20 || report.Gaps != 1 {
		t.Errorf("%v requests, %d gaps, want 39 and 1", got, report.Gaps)
	}
}

func TestPastOfHistogramsAndMeans(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	p := newPod(s, "p", 0, true)
	for m := int64(1); m <= 10; m++ {
		p.count(4, "agent_requests_total", "code", "200")
		p.count(3, "agent_request_duration_seconds_bucket", "le", "0.5")
		p.count(4, "agent_request_duration_seconds_bucket", "le", "+Inf")
		p.count(2, "agent_satisfaction_count")
		p.count(9, "agent_satisfaction_sum")
		p.scrape(m * minute)
	}
	l, _, err := pastOf(t, s, "", 0, 10*minute, "p95_latency", "user_satisfaction")
	if err != nil {
		t.Fatal(err)
	}
	// The first scrape is a position: the process began at the very beginning, not after it.
	wantN := map[string]float64{"/total_requests": 36, "/p95_latency le 0.5": 27, "/p95_latency le +Inf": 36, "/user_satisfaction": 18}
	if diff := cmp.Diff(wantN, l.n); diff != "" {
		t.Errorf("observations (-want +got):\n%s", diff)
	}
	if l.x["/user_satisfaction"] != 81 {
		t.Errorf("sum %v, want 81", l.x["/user_satisfaction"])
	}
}

// However small the answers must be, what is counted is the same.
func TestPastInSmallPieces(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	p := newPod(s, "p", -minute, true)
	for m := int64(1); m <= 500; m++ {
		p.count(float64(m%7), "agent_requests_total", "code", "200")
		p.scrape(m * minute)
	}
	whole, _, err := pastOf(t, s, "", 0, 500*minute, "total_requests")
	if err != nil {
		t.Fatal(err)
	}
	s.limit = 13
	pieces, _, err := pastOf(t, s, "", 0, 500*minute, "total_requests")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole, pieces, cmp.AllowUnexported(ledger{})); diff != "" || len(whole.moments["/total_requests"]) < 400 {
		t.Errorf("in pieces (-whole +pieces):\n%s", diff)
	}
}

func TestPastRefuses(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	p := newPod(s, "p", 0, true)
	p.count(1, "agent_requests_total", "code", "200")
	p.scrape(minute)
	for _, tt := range []struct{ name, label, metric, want string }{
		{"a label that is not there", "user", "total_requests", "has no label user"},
		{"a label that is none", "po d", "total_requests", "is not the name of a label"},
		{"an unknown metric", "", "", "is no preset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := pastOf(t, s, tt.label, 0, 2*minute, tt.metric)
			var rejected *metrics.Rejected
			if !errors.As(err, &rejected) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A server that is busy is waited for, and no longer than the caller does.
func TestPastWaitsForABusyServer(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.fail(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		cancel()
	})
	p, err := New(Settings{URL: s.url})
	if err != nil {
		t.Fatal(err)
	}
	r := PastRequest{Agent: "a", Version: "v1", From: time.UnixMilli(0), To: time.UnixMilli(minute)}
	if _, err := p.Past(ctx, r, newLedger()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the caller gave up", err)
	}
}

func TestScrapeInterval(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	p := newPod(s, "p", 0, true)
	for at := int64(1); at <= 20; at++ { // long before the end of the time
		p.count(1, "agent_requests_total", "code", "200")
		p.scrape(at * 15_000)
	}
	provider, err := New(Settings{URL: s.url})
	if err != nil {
		t.Fatal(err)
	}
	r := PastRequest{Agent: "a", Version: "v1", From: time.UnixMilli(0), To: time.UnixMilli(3000 * minute)}
	if got, err := provider.ScrapeInterval(t.Context(), r); err != nil || got != 15*time.Second {
		t.Errorf("interval %s, %v, want 15s", got, err)
	}
	r.Version = "v2"
	var rejected *metrics.Rejected
	if _, err := provider.ScrapeInterval(t.Context(), r); !errors.As(err, &rejected) {
		t.Errorf("error %v for a version without samples, want a Rejected", err)
	}
}
