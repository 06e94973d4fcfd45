// Package prometheus takes a rollout's numbers from Prometheus, or anything that speaks its query API.
//
// It never asks for rate() or increase(), which extrapolate: it reads the raw samples of the counters and adds up what they
// grew by since the cursor, exactly. A late poll, a repeated one or a crash of the worker neither loses nor doubles a request;
// a restart of what is scraped is noticed by a falling counter and, where process_start_time_seconds is exported as well, even
// when the counter has already overtaken its old value. What was never scraped can't be known: the requests between the last
// scrape and the end of a process.
//
// All counters of a rollout come from one query per poll, so that events and trials are of the same moment. Series need the
// labels agent and version, histograms their classic buckets.
package prometheus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/template"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Settings of a Provider.
type Settings struct {
	URL       string            // of the server, before /api/v1; credentials in it are used and never told
	Token     string            // bearer token; empty: none
	Timeout   time.Duration     // of one query; 0: 10 s
	MaxBody   int64             // of one answer, in bytes; 0: 32 MiB
	TLS       *tls.Config       // of an https URL; nil: the defaults
	Transport http.RoundTripper // instead of one made of TLS; nil: that one
	Now       func() time.Time  // nil: time.Now. It should agree with Prometheus's clock to a scrape interval
}

// Provider samples one Prometheus. It is safe for concurrent use.
type Provider struct {
	source *source
	now    func() time.Time
}

var _ metrics.Provider = (*Provider)(nil)

// New is a Provider. It asks nothing yet. Errors: a URL that is not http or https.
func New(s Settings) (*Provider, error) {
	if s.Timeout == 0 {
		s.Timeout = 10 * time.Second
	}
	if s.MaxBody == 0 {
		s.MaxBody = 32 << 20
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	source, err := newSource(s)
	if err != nil {
		return nil, err
	}
	return &Provider{source: source, now: s.Now}, nil
}

// Sample returns what the counters grew by since the cursor; see metrics.Provider. One poll reads at most an hour of samples:
// after a longer pause Samples.At lies in the past, and the next polls catch up. Errors: *metrics.Rejected, *metrics.Busy, or a
// passing fault.
func (p *Provider) Sample(ctx context.Context, request metrics.Request) (metrics.Samples, error) {
	if err := check(request); err != nil {
		return metrics.Samples{}, err
	}
	plan, err := newPlan(request)
	if err != nil {
		return metrics.Samples{}, err
	}
	before, err := decodeCursor(request.Cursor)
	switch {
	case errors.Is(err, metrics.ErrNewer):
		return metrics.Samples{}, err
	case err != nil:
		return metrics.Samples{}, &metrics.Rejected{Reason: err.Error()}
	}
	now := p.now().UnixMilli()
	var (
		series []counted
		after  *cursor
	)
	if before == nil {
		after, err = p.source.position(ctx, plan.matchers(request), now)
	} else {
		series, after, err = p.source.count(ctx, plan.matchers(request), before, now)
	}
	if err != nil {
		return metrics.Samples{}, err
	}
	values, err := p.values(ctx, request, plan, before, after)
	if err != nil {
		return metrics.Samples{}, err
	}
	out := plan.samples(request, series, values)
	out.At, out.Behind = time.UnixMilli(after.at), after.behind()
	if out.Cursor, err = after.encode(); err != nil {
		return metrics.Samples{}, fmt.Errorf("encode the cursor: %w", err)
	}
	return out, nil
}

func check(request metrics.Request) error {
	for what, name := range map[string]string{"agent": request.Agent, "stable": request.Stable, "canary": request.Canary} {
		if !rollout.ValidName(name) {
			return &metrics.Rejected{Reason: fmt.Sprintf("%s %q: want %s", what, name, rollout.NamePattern)}
		}
	}
	return nil
}

// pair is a metric's value per version; nil where there is none.
type pair struct{ stable, canary *float64 }

// values asks for the metrics of kind value, at the same moment.
func (p *Provider) values(ctx context.Context, request metrics.Request, plan *plan, before, after *cursor) (map[string]pair, error) {
	out := map[string]pair{}
	window := time.Minute
	if before != nil {
		window = max(window, time.Duration(after.at-before.at)*time.Millisecond)
	}
	for name, places := range plan.metrics {
		if places.query == nil {
			continue
		}
		var both pair
		for version, to := range map[string]**float64{request.Stable: &both.stable, request.Canary: &both.canary} {
			value, err := p.value(ctx, places.query, request.Agent, version, window, after.at)
			if err != nil {
				return nil, fmt.Errorf("metric %s: %w", name, err)
			}
			*to = value
		}
		out[name] = both
	}
	return out, nil
}

// value is one number, or nil when the query finds nothing.
func (p *Provider) value(ctx context.Context, query *template.Template, agent, version string, window time.Duration, at int64) (*float64, error) {
	var text strings.Builder
	fields := struct{ Agent, Version, Window string }{agent, version, fmt.Sprintf("%dms", window.Milliseconds())}
	if err := query.Execute(&text, fields); err != nil {
		return nil, &metrics.Rejected{Reason: "fill in the query: " + err.Error()}
	}
	found, err := p.source.vector(ctx, text.String(), at)
	if err != nil {
		return nil, err
	}
	if len(found) > 1 {
		return nil, &metrics.Rejected{Reason: fmt.Sprintf("query %q gives %d series, want one: aggregate them", text.String(), len(found))}
	}
	if len(found) == 0 || found[0].Value != found[0].Value { // NaN: nothing to divide by
		return nil, nil
	}
	value := float64(found[0].Value)
	return &value, nil
}
