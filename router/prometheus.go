package router

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The metrics, as Prometheus names them.
var (
	versionLabels = []string{"agent", "version"}
	requestsDesc  = prometheus.NewDesc("agent_requests_total", "Requests that have ended, by status.", []string{"agent", "version", "code"}, nil)
	conversations = prometheus.NewDesc("agent_conversations_total", "Conversations that began on the version.", versionLabels, nil)
	tasksDesc     = prometheus.NewDesc("agent_tasks_total", "Tasks by outcome.", []string{"agent", "version", "outcome"}, nil)
	safetyDesc    = prometheus.NewDesc("agent_safety_violations_total", "Safety violations by kind.", []string{"agent", "version", "kind"}, nil)
	satisfaction  = prometheus.NewDesc("agent_satisfaction", "User satisfaction, on the agent's scale.", versionLabels, nil)
	tokensDesc    = prometheus.NewDesc("agent_task_tokens", "Tokens per task.", versionLabels, nil)
	costDesc      = prometheus.NewDesc("agent_task_cost_usd", "Cost per task in US dollars.", versionLabels, nil)
	toolsDesc     = prometheus.NewDesc("agent_tool_calls_total", "Tool calls by outcome.", []string{"agent", "version", "outcome"}, nil)
	weightDesc    = prometheus.NewDesc("aviary_router_canary_weight", "The canary's share of new conversations in force, 0 to 1.", []string{"agent"}, nil)
	leaseDesc     = prometheus.NewDesc("aviary_router_lease_expired", "1 when the canary's lease has run out while it had weight.", []string{"agent"}, nil)
	changesDesc   = prometheus.NewDesc("aviary_router_fingerprint_changes_total", "Times that a version became another under its name.", versionLabels, nil)
	healthyDesc   = prometheus.NewDesc("aviary_router_upstream_healthy", "0 while an instance can't be reached and is left out.", []string{"agent", "version", "upstream"}, nil)
	queuedDesc    = prometheus.NewDesc("aviary_router_queued_requests", "Requests that wait for their turn.", versionLabels, nil)
	awayDesc      = prometheus.NewDesc("aviary_router_turned_away_total", "Requests turned away unsent, by reason.", []string{"agent", "version", "reason"}, nil)
	mirrorDesc    = prometheus.NewDesc("aviary_router_mirror_share", "The share of stable's requests that are copied to the canary, 0 to 1.", []string{"agent"}, nil)
	droppedDesc   = prometheus.NewDesc("aviary_router_mirror_dropped_total", "Copies that were not sent.", []string{"agent", "reason"}, nil)
	liveDesc      = prometheus.NewDesc("aviary_router_live_requests", "Requests under way.", versionLabels, nil)
)

// collector shows a Router's counters to Prometheus: every scrape reads each version at one moment.
type collector struct{ r *Router }

// Collector shows the counters of all versions to Prometheus.
func (r *Router) Collector() prometheus.Collector { return collector{r} }

// Describe leaves the histograms out: their labels are fixed per version, and versions come and go.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect writes the counters of every version, and the routes in force.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	c.r.mu.Lock()
	stats := slices.Collect(maps.Values(c.r.stats))
	var live []prometheus.Metric
	for _, s := range c.r.agents {
		for why, label := range mirrorLabels {
			live = append(live, prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(s.drops[why].Load()), s.name, label))
		}
		for _, v := range s.versions {
			live = append(live, gauge(liveDesc, float64(v.streams.Live()), s.name, v.name),
				gauge(queuedDesc, float64(v.upstreams.Queued()), s.name, v.name),
				prometheus.MustNewConstMetric(changesDesc, prometheus.CounterValue, float64(v.identity.count()), s.name, v.name))
			live = append(live, v.upstreamMetrics(s.name)...)
		}
	}
	c.r.mu.Unlock()
	for _, m := range live {
		ch <- m
	}
	for _, s := range stats {
		for _, m := range s.metrics() {
			ch <- m
		}
	}
	for _, o := range c.r.AllObserved() {
		ch <- gauge(weightDesc, float64(o.EffectiveWeight)/Buckets, o.Agent)
		expired := 0.0
		if o.LeaseExpired {
			expired = 1
		}
		ch <- gauge(mirrorDesc, float64(o.Mirror)/Buckets, o.Agent)
		ch <- gauge(leaseDesc, expired, o.Agent)
	}
}

// upstreamMetrics are of the instances of a version.
func (v *Version) upstreamMetrics(agent string) []prometheus.Metric {
	full, late := v.upstreams.TurnedAway()
	out := []prometheus.Metric{
		prometheus.MustNewConstMetric(awayDesc, prometheus.CounterValue, float64(full), agent, v.name, "queue_full"),
		prometheus.MustNewConstMetric(awayDesc, prometheus.CounterValue, float64(late), agent, v.name, "queue_timeout"),
		prometheus.MustNewConstMetric(awayDesc, prometheus.CounterValue, float64(v.upstreams.Unreached()), agent, v.name, "unreachable"),
	}
	for _, s := range v.upstreams.Status() {
		healthy := 0.0
		if s.Healthy {
			healthy = 1
		}
		out = append(out, gauge(healthyDesc, healthy, agent, v.name, s.URL))
	}
	return out
}

// snapshot is a metric as it was.
type snapshot struct {
	desc *prometheus.Desc
	m    *dto.Metric
}

func (s snapshot) Desc() *prometheus.Desc { return s.desc }

func (s snapshot) Write(m *dto.Metric) error {
	m.Label, m.Histogram = s.m.Label, s.m.Histogram
	return nil
}

// metrics are all of the version's, of one moment. Series start at zero, so that a first increment is seen as one.
func (s *Stats) metrics() []prometheus.Metric {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []prometheus.Metric
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{s.agent, s.version}, labels...)...))
	}
	count(requestsDesc, s.requests[200], codeLabel(200))
	for code, n := range s.requests {
		if code != 200 {
			count(requestsDesc, n, codeLabel(code))
		}
	}
	count(conversations, s.conversations)
	count(tasksDesc, s.tasks.Completed, "completed")
	count(tasksDesc, s.tasks.Failed, "failed")
	count(tasksDesc, s.tasks.Other, Other)
	count(safetyDesc, s.safety[Other], Other)
	for kind, n := range s.safety {
		if kind != Other {
			count(safetyDesc, n, kind)
		}
	}
	count(toolsDesc, s.tools.OK, "ok")
	count(toolsDesc, s.tools.Error, "error")
	out = append(out,
		prometheus.MustNewConstSummary(satisfaction, uint64(s.satisfaction.Count), s.satisfaction.Sum, nil, s.agent, s.version),
		prometheus.MustNewConstSummary(tokensDesc, uint64(s.tokens.Count), s.tokens.Sum, nil, s.agent, s.version),
		prometheus.MustNewConstSummary(costDesc, uint64(s.cost.Count), s.cost.Sum, nil, s.agent, s.version),
		snapshot{s.latency.Desc(), written(s.latency)}, snapshot{s.ttfb.Desc(), written(s.ttfb)})
	return out
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}
