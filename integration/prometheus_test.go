package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	prommetrics "github.com/aviary-rollouts/aviary/activities/metrics/prometheus"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/stack"
	"github.com/aviary-rollouts/aviary/rollout"
)

// freePort is a port that was free a moment ago, for servers that must come back on the same one.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startPrometheus runs a real Prometheus that scrapes the target, and returns its URL.
func startPrometheus(t testing.TB, dir, target string) string {
	t.Helper()
	bin, err := stack.Binary("prometheus")
	if err != nil {
		t.Fatalf("%v (`make prometheus` gets one)", err)
	}
	settings := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nscrape_configs:\n  - job_name: gateway\n    static_configs: [{targets: [%q]}]\n", target)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	p, err := stack.Run("prometheus", filepath.Join(dir, "prometheus.log"), nil, bin, "--config.file", settings,
		"--storage.tsdb.path", filepath.Join(dir, "tsdb"), "--web.listen-address", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return "http://" + address
}

func TestPrometheusCountsExactlyOverAGatewayRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect(), noWorker: true})
	// The gateway must come back where Prometheus scrapes it.
	proxy, admin := w.gateway.Proxy, w.gateway.Admin
	w.must(w.gateway.Stop())
	w.writeGatewaySettings(proxy, admin)
	w.startGateway()

	address := startPrometheus(t, w.dir, admin)
	w.eventually("Prometheus", func() error {
		resp, err := http.Get(address + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it says %d", resp.StatusCode)
		}
		return nil
	})
	provider, err := prommetrics.New(prommetrics.Settings{URL: address})
	w.must(err)
	total, _ := analysis.Preset("total_requests")
	errorRate, _ := analysis.Preset("error_rate")
	latency, _ := analysis.Preset("p95_latency")
	c := &counting{w: w, provider: provider, request: metrics.Request{
		Agent: "support-agent", Stable: "v41", Canary: "v42",
		Metrics: []metrics.Metric{{Metric: total}, {Metric: errorRate}, {Metric: latency}},
	}}
	// A counter that Prometheus first sees above zero has no increase: the series at zero must be there before the requests.
	w.eventually("a scrape of the gateway", func() error { return scraped(address, "support-agent") })
	c.poll() // the position

	w.sendAll("support-agent", 137)
	c.reaches(137)
	w.must(w.gateway.Stop())
	w.startGateway()
	w.sendAll("support-agent", 63)
	c.reaches(200)
	c.stays(200)
}

// scraped is nil once Prometheus holds a sample of the agent's requests.
func scraped(address, agent string) error {
	query := url.Values{"query": {fmt.Sprintf("count(agent_requests_total{agent=%q})", agent)}}
	resp, err := http.Get(address + "/api/v1/query?" + query.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []json.RawMessage `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if len(answer.Data.Result) == 0 {
		return errors.New("it holds no sample")
	}
	return nil
}

// counting adds up what a provider samples.
type counting struct {
	w        *world
	provider metrics.Provider
	request  metrics.Request
	requests float64
	trials   float64
	observed float64
}

func (c *counting) poll() {
	c.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := c.provider.Sample(ctx, c.request)
	c.w.must(err)
	c.request.Cursor = s.Cursor
	c.requests += s.Requests.Stable + s.Requests.Canary
	c.trials += s.Metrics["error_rate"].Stable.N + s.Metrics["error_rate"].Canary.N
	for _, arm := range []analysis.Counts{s.Metrics["p95_latency"].Stable, s.Metrics["p95_latency"].Canary} {
		for _, n := range arm.Buckets {
			c.observed += n
		}
	}
}

// reaches polls until n requests are counted, by all metrics alike.
func (c *counting) reaches(n float64) {
	c.w.t.Helper()
	c.w.eventually(fmt.Sprintf("%v requests in Prometheus", n), func() error {
		c.poll()
		if c.requests != n || c.trials != n || c.observed != n {
			return fmt.Errorf("it counts %v requests, %v trials, %v durations", c.requests, c.trials, c.observed)
		}
		return nil
	})
}

// stays fails if later polls count anything more.
func (c *counting) stays(n float64) {
	c.w.t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	c.w.eventually("three seconds of polls", func() error {
		c.poll()
		if c.requests != n || c.trials != n || c.observed != n {
			c.w.t.Fatalf("later polls count %v requests, %v trials, %v durations, want %v", c.requests, c.trials, c.observed, n)
		}
		if time.Now().Before(deadline) {
			return fmt.Errorf("still polling")
		}
		return nil
	})
}

func TestRolloutOnPrometheus(t *testing.T) {
	t.Parallel()
	// Prometheus has to be known before the worker starts, and the gateway before Prometheus.
	w := newWorld(t, worldOptions{behavior: perfect(), noWorker: true})
	w.options.prom = startPrometheus(t, w.dir, w.gateway.Admin)
	w.writeWorkerSettings()
	w.startWorker()
	w.traffic("support-agent", 100)
	w.start(`
agent: support-agent
stable: v41
canary: v42
traffic: {lease: 10s}
metrics: {provider: prometheus, target: prom, interval: 1s}
rollback_criteria: {max_safety_violations: 0, max_latency_increase: null, max_completion_drop: null}
canary_stages:
  - {name: half, weight: 0.5, duration: 4s, min_requests: 50, checks: ["error_rate < 0.05", "task_completion_rate > 0.90"]}
`)
	end := w.until("support-agent", "promoted", func(s rollout.Status) bool { return s.Phase == rollout.Promoted })
	// What Prometheus scrapes first is of before the canary had settled, and not the stage's.
	if end.Requests.Stable < 20 || end.Requests.Canary < 50 {
		t.Errorf("Prometheus counted %+v", end.Requests)
	}
}
