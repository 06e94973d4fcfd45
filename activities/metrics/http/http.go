// Package http takes a rollout's numbers from an API of somebody's own that answers with JSON, as those for the observability of language
// models do. A definition says what to ask, and by JSONPath (RFC 9535) where in the answer the numbers stand.
//
// A query with {{.From}} and {{.To}} asks for what happened between the two; one without asks for totals that only grow, of which the
// growth is taken: one that fell has begun again at zero. The cursor holds the time, and the totals. Numbers that arrive late are not missed
// as long as Settings.Delay covers them: they are asked for that much later.
package http

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	callTimeout  = 10 * time.Second
	maxBody      = 8 << 20          // of an answer, in bytes
	atOnce       = 4                // queries
	firstLook    = time.Minute      // what the first poll asks for, to see that there is an answer
	longest      = time.Hour        // that one poll asks for; after a longer pause the next ones catch up
	defaultPause = 10 * time.Second // when the API is busy and does not say for how long
)

// Settings of a Provider.
type Settings struct {
	URL         string        // of the API, before a definition's path; it is never told in an error beyond its host
	Token       string        // empty: none
	TokenHeader string        // the header that the token goes into as it is; empty: Authorization: Bearer
	User        string        // makes the token a password (basic authentication); empty: none
	Delay       time.Duration // how old numbers are once they are complete
	Timeout     time.Duration // of one query; 0: 10 s
	TLS         *tls.Config
	Now         func() time.Time // nil: time.Now
}

// Provider samples one API. It is safe for concurrent use.
type Provider struct {
	settings Settings
	base     *url.URL
	client   *http.Client
}

var _ metrics.Provider = (*Provider)(nil)

// New is a Provider. It asks nothing yet. Errors: a URL that is not http or https.
func New(s Settings) (*Provider, error) {
	u, err := url.Parse(strings.TrimRight(s.URL, "/"))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("http metrics: the address is no URL, want http://… or https://…")
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	client := httpx.NewClient(httpx.Settings{Timeout: cmp.Or(s.Timeout, callTimeout), MaxBody: maxBody, TLS: s.TLS})
	return &Provider{settings: s, base: u, client: client}, nil
}

// Sample asks for what happened since the cursor. Errors: *metrics.Rejected for a definition that can't be, *metrics.Busy, or a passing
// fault, as for an answer without the numbers: nothing counts as zero because it is missing.
func (p *Provider) Sample(ctx context.Context, request metrics.Request) (metrics.Samples, error) {
	plan, err := planOf(request)
	if err != nil {
		return metrics.Samples{}, &metrics.Rejected{Reason: err.Error()}
	}
	before, err := decode(request.Cursor)
	switch {
	case errors.Is(err, metrics.ErrNewer):
		return metrics.Samples{}, err
	case err != nil:
		return metrics.Samples{}, &metrics.Rejected{Reason: err.Error()}
	}
	to := p.settings.Now().Add(-p.settings.Delay).UTC().Truncate(time.Millisecond)
	from := to.Add(-firstLook)
	if before != nil {
		from = time.UnixMilli(before.At).UTC()
		to = slices.MinFunc([]time.Time{to, from.Add(longest)}, time.Time.Compare)
	}
	if !to.After(from) { // a clock that was set back, or two polls at once
		return samplesOf(request, nil, *before)
	}
	read, err := p.ask(ctx, request, plan, from, to)
	if err != nil {
		return metrics.Samples{}, err
	}
	after := cursor{Version: cursorVersion, At: to.UnixMilli(), Totals: map[string]numbers{}}
	for name, q := range plan {
		if q.ranged || q.kind == analysis.Value {
			continue
		}
		after.Totals[name] = read[name]
		if before != nil {
			read[name] = before.Totals[name].growth(read[name])
		}
	}
	if before == nil { // only a position
		read = nil
	}
	return samplesOf(request, read, after)
}

// cursorVersion is that of the cursor's form.
const cursorVersion = 1

// cursor is how far the numbers were taken.
type cursor struct {
	Version int                `json:"v"`
	At      int64              `json:"at"`               // in milliseconds since 1970
	Totals  map[string]numbers `json:"totals,omitempty"` // of metrics whose query asks for totals
}

func decode(raw json.RawMessage) (*cursor, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var c cursor
	err := json.Unmarshal(raw, &c) // one of a newer version may be of other types besides
	switch {
	case c.Version > cursorVersion:
		return nil, fmt.Errorf("version %d of the cursor: %w", c.Version, metrics.ErrNewer)
	case err != nil:
		return nil, fmt.Errorf("the cursor can't be read: %w", err)
	case c.Version < 1 || c.At <= 0:
		return nil, fmt.Errorf("the cursor can't be read: version %d at %d", c.Version, c.At)
	}
	return &c, nil
}

// numbers are what was read of one metric: per version what its parts stand at.
type numbers struct {
	Stable []float64 `json:"s"`
	Canary []float64 `json:"c"`
}

// growth is what totals grew by: all of them where they began again, nothing where none were known.
func (n numbers) growth(now numbers) numbers {
	grew := func(was, now []float64) []float64 {
		out := make([]float64, len(now))
		if len(was) != len(now) {
			return out
		}
		again := false
		for i := range now {
			again = again || now[i] < was[i]
		}
		for i := range now {
			if out[i] = now[i]; !again {
				out[i] -= was[i]
			}
		}
		return out
	}
	return numbers{grew(n.Stable, now.Stable), grew(n.Canary, now.Canary)}
}

// samplesOf are the samples of what was read; nil: nothing was.
func samplesOf(request metrics.Request, read map[string]numbers, at cursor) (metrics.Samples, error) {
	raw, err := json.Marshal(at)
	if err != nil {
		return metrics.Samples{}, fmt.Errorf("encode the cursor: %w", err)
	}
	out := metrics.Samples{At: time.UnixMilli(at.At), Cursor: raw, Metrics: map[string]analysis.Sample{}}
	counted := ""
	for _, m := range request.Metrics {
		n, ok := read[m.Name]
		if !ok {
			out.Metrics[m.Name] = analysis.Sample{}
			continue
		}
		s := analysis.Sample{Stable: countsOf(m.Kind, n.Stable), Canary: countsOf(m.Kind, n.Canary)}
		out.Metrics[m.Name] = s
		if (m.Kind == analysis.Ratio || m.Kind == analysis.Count) && countsBetter(m.Name, counted) {
			counted = m.Name
			out.Requests = rollout.Requests{Stable: s.Stable.N, Canary: s.Canary.N}
		}
	}
	return out, nil
}

// countsBetter reports whether one metric counts requests better than another: total_requests best, then error_rate, then the first by name.
func countsBetter(name, other string) bool {
	rank := func(name string) int { return slices.Index([]string{"", "error_rate", analysis.TotalRequests}, name) }
	if a, b := rank(name), rank(other); a > 0 || b > 0 {
		return a > b
	}
	return other == "" || name < other
}

func countsOf(kind analysis.Kind, parts []float64) analysis.Counts {
	if kind == analysis.Value {
		return analysis.Counts{Value: parts[0], HasValue: true}
	}
	return analysis.Counts{X: parts[0], N: parts[1]}
}
