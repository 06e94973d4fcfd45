package prometheus

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/rollout"
)

// The labels that tell agents and versions apart.
const (
	agentLabel   = "agent"
	versionLabel = "version"
)

// requests is the counter of all requests of a version.
const requests = "agent_requests_total"

// conversations is the counter of the conversations that began on a version.
const conversations = "agent_conversations_total"

// presets are the metrics of the gateway, as it exports them.
var presets = map[string]rollout.Definition{
	"total_requests":       {Kind: "count", Events: requests, Trials: requests},
	"error_rate":           {Kind: "ratio", Events: requests + `{code=~"5.."}`, Trials: requests},
	"task_completion_rate": {Kind: "ratio", Events: `agent_tasks_total{outcome="completed"}`, Trials: "agent_tasks_total"},
	"safety_violations":    {Kind: "count", Events: "agent_safety_violations_total", Trials: requests},
	"tool_error_rate":      {Kind: "ratio", Events: `agent_tool_calls_total{outcome="error"}`, Trials: "agent_tool_calls_total"},
	"p50_latency":          {Kind: "quantile", Quantile: 0.50, Histogram: "agent_request_duration_seconds"},
	"p95_latency":          {Kind: "quantile", Quantile: 0.95, Histogram: "agent_request_duration_seconds"},
	"p99_latency":          {Kind: "quantile", Quantile: 0.99, Histogram: "agent_request_duration_seconds"},
	"time_to_first_token":  {Kind: "quantile", Quantile: 0.95, Histogram: "agent_time_to_first_byte_seconds"},
	"user_satisfaction":    {Kind: "mean", Sum: "agent_satisfaction_sum", Count: "agent_satisfaction_count"},
	"tokens_per_task":      {Kind: "mean", Sum: "agent_task_tokens_sum", Count: "agent_task_tokens_count"},
	"cost_per_task":        {Kind: "mean", Sum: "agent_task_cost_usd_sum", Count: "agent_task_cost_usd_count"},
}

// total is the metric whose increments are the requests.
const total = "total_requests"

// plan says where the numbers of a request's metrics are.
type plan struct {
	requests *places
	metrics  map[string]*places
}

// places are where the numbers of one metric are, by its kind.
type places struct {
	kind           string
	events, trials *selector // ratio and count
	sum, count     *selector // mean
	histogram      *selector // quantile: of the buckets
	query          *template.Template
}

// newPlan finds all metrics. Errors: *metrics.Rejected.
func newPlan(request metrics.Request) (*plan, error) {
	p := &plan{metrics: map[string]*places{}}
	for _, m := range request.Metrics {
		definition, ok := presets[m.Name]
		if m.Definition != nil {
			definition, ok = *m.Definition, true
		}
		if !ok {
			return nil, &metrics.Rejected{Reason: fmt.Sprintf("metric %q is no preset of prometheus, which are %s: define it",
				m.Name, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))}
		}
		found, err := find(definition)
		if err != nil {
			return nil, &metrics.Rejected{Reason: fmt.Sprintf("metric %q: %v", m.Name, err)}
		}
		p.metrics[m.Name] = found
	}
	p.requests = p.metrics[total]
	if p.requests == nil || p.requests.events == nil {
		p.requests, _ = find(presets[total]) // a preset is right
	}
	return p, nil
}

func find(d rollout.Definition) (*places, error) {
	p := &places{kind: d.Kind}
	var wanted []struct {
		text string
		to   **selector
	}
	want := func(text string, to **selector) {
		wanted = append(wanted, struct {
			text string
			to   **selector
		}{text, to})
	}
	switch d.Kind {
	case "ratio", "count":
		want(d.Events, &p.events)
		want(d.Trials, &p.trials)
	case "mean":
		want(d.Sum, &p.sum)
		want(d.Count, &p.count)
	case "quantile":
		want(d.Histogram, &p.histogram)
	case "value":
		var err error
		if p.query, err = template.New("query").Option("missingkey=error").Parse(d.Query); err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
	default:
		return nil, fmt.Errorf("kind %q: want ratio, count, mean, quantile or value", d.Kind)
	}
	for _, w := range wanted {
		s, err := parseSelector(w.text, agentLabel, versionLabel)
		if err != nil {
			return nil, err
		}
		if w.to == &p.histogram {
			s = s.suffixed("_bucket")
		}
		*w.to = &s
	}
	return p, nil
}

func (p *places) selectors() []*selector {
	return slices.DeleteFunc([]*selector{p.events, p.trials, p.sum, p.count, p.histogram}, func(s *selector) bool { return s == nil })
}

// matchers are PromQL for all series that the plan needs, of both versions, in one selector: one answer of one moment.
func (p *plan) matchers(request metrics.Request) string {
	names := map[string]bool{conversations: true}
	for _, places := range append(slices.Collect(maps.Values(p.metrics)), p.requests) {
		for _, s := range places.selectors() {
			names[s.name] = true
		}
	}
	var versions []string
	for _, v := range []string{request.Stable, request.Canary} {
		if v != "" {
			versions = append(versions, v)
		}
	}
	return strings.Join([]string{
		oneOf("__name__", slices.Sorted(maps.Keys(names))),
		agentLabel + "=" + fmt.Sprintf("%q", request.Agent),
		oneOf(versionLabel, versions),
	}, ",")
}
