// Package router takes a rollout's numbers from the counters of Aviary's own gateways, without a metrics system in between.
//
// The counters are exact and cumulative since a gateway's start. The cursor keeps, per gateway, the instance and what its
// counters stood at; a new instance counts from zero. What a gateway served between the last poll and its end is lost with it.
// A gateway that does not answer is an error, not a gap: its requests are counted by the next poll that reaches it. One whose
// address the name no longer stands for is gone, with what it served since the last poll.
package router

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/internal/replicas"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router/api"
)

// callTimeout bounds one call to one gateway unless the client says otherwise.
const callTimeout = 3 * time.Second

// maxBody bounds an answer of a gateway, in bytes.
const maxBody = 16 << 20

// defaultPause is how long to wait when a gateway is busy and does not say for how long.
const defaultPause = 5 * time.Second

// Provider samples all gateways. It is safe for concurrent use.
type Provider struct {
	set *replicas.Set
}

var _ metrics.Provider = (*Provider)(nil)

// New is a Provider of the gateways whose admin APIs are at the addresses, such as "http://10.0.0.7:9901". Client may be nil;
// without a timeout of its own it gets 3 s a call. Errors: no gateway, one twice, or an address that is no URL.
func New(gateways []string, token string, client *http.Client) (*Provider, error) {
	return Open(replicas.Settings{Addresses: gateways, Token: token, Client: client})
}

// Open is a Provider of the gateways that s describes. Without a timeout a call gets 3 s. Errors are those of replicas.New.
func Open(s replicas.Settings) (*Provider, error) {
	s.Timeout, s.MaxBody = cmp.Or(s.Timeout, callTimeout), cmp.Or(s.MaxBody, maxBody)
	set, err := replicas.New(s)
	if err != nil {
		return nil, fmt.Errorf("router metrics: %w", err)
	}
	return &Provider{set}, nil
}

// answer is a gateway's counters.
type answer struct {
	name string // of the gateway
	key  string // of it in cursors, which must not hold addresses
	api.Counters
}

// Sample returns what the counters grew by since the cursor; see metrics.Provider. A gateway that the cursor does not know
// counts from its start if that was after the last poll, else from the next poll on. Errors: *metrics.Rejected, *metrics.Busy, or a passing fault that names the gateway.
func (p *Provider) Sample(ctx context.Context, request metrics.Request) (metrics.Samples, error) {
	wanted, err := fieldsOf(request)
	if err != nil {
		return metrics.Samples{}, err
	}
	before, err := decodeCursor(request.Cursor)
	if err != nil {
		return metrics.Samples{}, err
	}
	at := time.Now()
	all, err := p.ask(ctx, request.Agent)
	if err != nil {
		return metrics.Samples{}, err
	}
	if all, err = p.oneEach(all, before, at); err != nil {
		return metrics.Samples{}, err
	}
	after := cursor{Version: cursorVersion, At: at.UnixMilli(), Gateways: map[string]position{}}
	var grown arms
	for _, g := range all {
		old, known := before.Gateways[g.key]
		if len(g.Bounds) > 0 && grown.bounds == nil {
			grown.bounds = g.Bounds
		}
		if !slices.Equal(grown.bounds, g.Bounds) {
			return metrics.Samples{}, fmt.Errorf("sample the gateways: %s has other histogram buckets than %s: wait until both run the same build", g.name, all[0].name)
		}
		now := position{Instance: g.Instance, Stable: read(g.Counters, request.Stable, wanted), Canary: read(g.Counters, request.Canary, wanted)}
		after.Gateways[g.key] = now
		if !known && !startedSince(g, before, at) {
			continue
		}
		if old.Instance != now.Instance {
			old = position{}
		}
		grown.stable.add(now.Stable.since(old.Stable))
		grown.canary.add(now.Canary.since(old.Canary))
	}
	raw, err := json.Marshal(after)
	if err != nil {
		return metrics.Samples{}, fmt.Errorf("encode the cursor: %w", err)
	}
	return grown.samples(request, at, raw), nil
}

// clockSlack is how much older than the last poll a gateway that looks restarted may be, for clocks that differ.
const clockSlack = 5 * time.Second

// startedSince reports whether a gateway began after the last poll: all that it has counted is new.
func startedSince(g answer, before cursor, at time.Time) bool {
	const rounding = 2 * time.Millisecond // of both
	return before.At > 0 && g.age()+rounding < at.Sub(time.UnixMilli(before.At))
}

func (a answer) age() time.Duration { return time.Duration(a.UptimeMillis) * time.Millisecond }

// oneEach wants every address to be of one gateway, and of another one than the rest; where a name says which they are, one that
// has two addresses is taken by its first. Behind a load balancer the counters of several processes would take turns, and each
// turn would look like a restart that counts a whole life again.
func (p *Provider) oneEach(all []answer, before cursor, at time.Time) ([]answer, error) {
	seen := map[string]string{}
	out := make([]answer, 0, len(all))
	for _, g := range all {
		if first, twice := seen[g.Instance]; twice {
			if p.set.ByName() {
				continue
			}
			return nil, fmt.Errorf("sample the gateways: %s and %s are the same gateway, name each once", first, g.name)
		}
		seen[g.Instance] = g.name
		old, known := before.Gateways[g.key]
		if since := at.Sub(time.UnixMilli(before.At)); known && old.Instance != g.Instance && before.At > 0 && g.age() > since+clockSlack {
			return nil, fmt.Errorf("sample the gateways: %s answers for more than one gateway, name every replica by its own address", g.name)
		}
		out = append(out, g)
	}
	return out, nil
}

// ask takes the counters of all gateways at once, in their order. All must answer.
func (p *Provider) ask(ctx context.Context, agent string) ([]answer, error) {
	gateways := p.set.All(ctx)
	out := make([]answer, len(gateways))
	errs := make([]error, len(gateways))
	var wg sync.WaitGroup
	for i, g := range gateways {
		out[i].name, out[i].key = g.Name, keyOf(g.Name)
		if errs[i] = g.Err; g.Err == nil {
			wg.Go(func() { out[i].Counters, errs[i] = g.Client.Counters(ctx, agent) })
		}
	}
	wg.Wait()
	if err := unanswered(agent, out, errs); err != nil {
		return nil, err
	}
	return out, nil
}

// unanswered is one error of all gateways'; nil if there is none.
func unanswered(agent string, gateways []answer, errs []error) error {
	unknown := 0
	var pause time.Duration
	var texts []string
	for i, err := range errs {
		if err == nil {
			continue
		}
		texts = append(texts, fmt.Sprintf("%s: %v", gateways[i].name, err))
		var answer *api.Error
		if !errors.As(err, &answer) {
			continue
		}
		if answer.Code == api.CodeUnknownAgent {
			unknown++
		}
		if answer.Status == http.StatusTooManyRequests || answer.Status == http.StatusServiceUnavailable {
			pause = max(pause, min(answer.RetryAfter, httpx.MaxRetryAfter))
			if answer.RetryAfter == 0 {
				pause = max(pause, defaultPause)
			}
		}
	}
	if len(texts) == 0 {
		return nil
	}
	if unknown == len(gateways) {
		return &metrics.Rejected{Reason: "sample agent " + agent + ": " + texts[0]}
	}
	err := &missing{
		text: fmt.Sprintf("sample agent %s: %d of %d gateways are missing: %s", agent, len(texts), len(errs), strings.Join(texts, "; ")),
		errs: errs,
	}
	if pause > 0 {
		return &metrics.Busy{RetryAfter: pause, Err: err}
	}
	return err
}

// missing is a passing fault of some gateways.
type missing struct {
	text string
	errs []error // by gateway; nil where all is well
}

func (e *missing) Error() string { return e.text }

// Unwrap is what went wrong at each gateway.
func (e *missing) Unwrap() []error {
	return slices.DeleteFunc(slices.Clone(e.errs), func(err error) bool { return err == nil })
}

// field is a group of counters that one or more metrics need.
type field string

const (
	fieldErrors       field = "errors"
	fieldTasks        field = "tasks"
	fieldSafety       field = "safety"
	fieldSatisfaction field = "satisfaction"
	fieldTokens       field = "tokens"
	fieldCost         field = "cost"
	fieldTools        field = "tools"
	fieldLatency      field = "latency"
	fieldTTFB         field = "ttfb"
	fieldRequests     field = "requests" // always kept,
	// as are those that began; testers' are not counted
	fieldConversations field = "conversations"
)

// presets say what each metric is made of.
var presets = map[string]field{
	"total_requests": fieldRequests, "error_rate": fieldErrors, "task_completion_rate": fieldTasks,
	"p50_latency": fieldLatency, "p95_latency": fieldLatency, "p99_latency": fieldLatency, "time_to_first_token": fieldTTFB,
	"safety_violations": fieldSafety, "user_satisfaction": fieldSatisfaction, "tokens_per_task": fieldTokens,
	"cost_per_task": fieldCost, "tool_error_rate": fieldTools,
}

// fieldsOf checks the request and finds what its metrics need. Errors: *metrics.Rejected.
func fieldsOf(request metrics.Request) (map[field]bool, error) {
	for what, name := range map[string]string{"agent": request.Agent, "stable": request.Stable, "canary": request.Canary} {
		if !rollout.ValidName(name) {
			return nil, &metrics.Rejected{Reason: fmt.Sprintf("%s %q: want %s", what, name, rollout.NamePattern)}
		}
	}
	wanted := map[field]bool{}
	for _, m := range request.Metrics {
		f, ok := presets[m.Name]
		if !ok || m.Definition != nil {
			return nil, &metrics.Rejected{Reason: fmt.Sprintf("metric %q: the provider router has only its presets, which are %s",
				m.Name, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))}
		}
		wanted[f] = true
	}
	return wanted, nil
}

// arms are both versions' increments over all gateways.
type arms struct {
	stable, canary increments
	bounds         []float64
}

func (a arms) samples(request metrics.Request, at time.Time, cursor json.RawMessage) metrics.Samples {
	out := metrics.Samples{
		At: at, Cursor: cursor, Metrics: map[string]analysis.Sample{},
		Requests:      rollout.Requests{Stable: a.stable[fieldRequests].N, Canary: a.canary[fieldRequests].N},
		Conversations: rollout.Requests{Stable: a.stable[fieldConversations].N, Canary: a.canary[fieldConversations].N},
	}
	for _, m := range request.Metrics {
		f := presets[m.Name]
		sample := analysis.Sample{Stable: a.stable[f], Canary: a.canary[f]}
		if f == fieldLatency || f == fieldTTFB {
			sample.Bounds = a.bounds
		}
		out.Metrics[m.Name] = sample
	}
	return out
}
