package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aviary-rollouts/aviary/internal/stack"
	"github.com/aviary-rollouts/aviary/rollout"
)

// plane is a data plane that callers ask for a version: a webhook's receiver, or a flag that flagd's own evaluator reads. What became of the
// calls is written to a PostgreSQL, where the rollout finds it.
type plane struct {
	*world
	driver string
	object string // of the rollout file's traffic
	flags  string // flagd: the file
	choose func(keys []string) ([]string, error)

	mu      sync.Mutex
	failing map[string]float64 // by version
}

var planes = map[string]func(t *testing.T, p *plane) map[string]any{"webhook": withReceiver, "flagd": withFlags}

// withReceiver starts the sample receiver, and returns the worker's target.
func withReceiver(t *testing.T, p *plane) map[string]any {
	t.Helper()
	address, secret := freePort(t), stack.Token()
	p.options.env = append(p.options.env, "AVIARY_ROUTE_SECRET="+secret)
	p.run("webhook-receiver", "--listen", address, "--agent", "bot=v41,v42,v43")
	p.choose = func(keys []string) ([]string, error) {
		var out []string
		for _, key := range keys {
			text, err := fetch("http://" + address + "/choose?" + url.Values{"agent": {"bot"}, "key": {key}}.Encode())
			if err != nil {
				return nil, err
			}
			out = append(out, strings.TrimSpace(string(text)))
		}
		return out, nil
	}
	return map[string]any{"driver": "webhook", "url": "http://" + address, "secret_env": "AVIARY_ROUTE_SECRET"}
}

// withFlags writes a flag as a team has it before its first rollout, and starts the evaluator and the guard.
func withFlags(t *testing.T, p *plane) map[string]any {
	t.Helper()
	p.flags = p.file("flags.json", `{"flags": {
  "bot-version": {"state": "ENABLED", "variants": {"stable": "v41"}, "defaultVariant": "stable"},
  "dark-mode":   {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"}
}}`)
	address := freePort(t)
	p.run("flagd-evaluate", "--listen", address, "--flags", p.flags)
	p.object = "\n  object: {name: bot-version}"
	p.choose = func(keys []string) (out []string, err error) {
		raw, err := fetch("http://" + address + "/choose?" + url.Values{"flag": {"bot-version"}, "key": keys}.Encode())
		if err != nil {
			return nil, err
		}
		return out, json.Unmarshal(raw, &out)
	}
	target := map[string]any{"driver": "flagd", "file": p.flags}
	p.write("guard.yaml", map[string]any{"listen": "127.0.0.1:0", "traffic": map[string]any{"plane": target}})
	p.run("worker", "guard", "--config", filepath.Join(p.dir, "guard.yaml"))
	return target
}

// newPlane starts all of it, with calls that never stop.
func newPlane(t *testing.T, driver string) *plane {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	database, err := stack.NewPostgres(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.Remove(); err != nil {
			t.Error(err)
		}
	})
	p := &plane{world: newWorld(t, worldOptions{noWorker: true}), driver: driver, failing: map[string]float64{}}
	target := planes[driver](t, p)
	p.options.env = append(p.options.env, "WAREHOUSE_DSN="+database.DSN("postgres"))
	p.write("worker.yaml", map[string]any{
		"listen": "127.0.0.1:0", "traffic": map[string]any{"plane": target},
		"metrics": map[string]any{"warehouse": map[string]any{"provider": "sql", "dsn_env": "WAREHOUSE_DSN", "delay": "300ms"}},
	})
	calls, err := pgx.Connect(ctx, database.DSN("postgres"))
	p.must(err)
	_, err = calls.Exec(ctx, `CREATE TABLE calls (ended_at timestamptz NOT NULL, version text NOT NULL, failed boolean NOT NULL)`)
	p.must(err)
	p.eventually("the plane answers", func() error { _, err := p.choose([]string{"first"}); return err })
	p.call(calls)
	p.startWorker()
	return p
}

// run starts a binary until the test ends.
func (p *plane) run(name string, args ...string) {
	p.t.Helper()
	bin, err := stack.Binary(name)
	p.must(err)
	process, err := stack.Run(name, filepath.Join(p.dir, strings.Join(append([]string{name}, args[:1]...), "-")+".log"), p.env(), bin, args...)
	p.must(err)
	p.t.Cleanup(process.Kill)
}

func fetch(url string) ([]byte, error) {
	resp, err := http.Get(url) //nolint:gosec // of a process that the test started
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, raw)
	}
	return raw, err
}

// call lets callers ask for a version, and notes what became of each call.
func (p *plane) call(calls *pgx.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.t.Cleanup(func() {
		cancel()
		<-done
		_ = calls.Close(context.Background()) // the server is about to go
	})
	go func() {
		defer close(done)
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			versions, err := p.choose(keys(20))
			if err != nil {
				continue // nobody was called
			}
			failed := make([]bool, len(versions))
			for i, v := range versions {
				failed[i] = rand.Float64() < p.failure(v)
			}
			_, err = calls.Exec(ctx, `INSERT INTO calls SELECT clock_timestamp(), u.version, u.failed FROM unnest($1::text[], $2::boolean[]) AS u (version, failed)`, versions, failed)
			if err != nil && ctx.Err() == nil {
				p.t.Errorf("calls can't be noted: %v", err)
				return
			}
		}
	}()
}

func keys(n int) (out []string) {
	for range n {
		out = append(out, fmt.Sprintf("conversation-%x", rand.Uint64()))
	}
	return out
}

func (p *plane) failure(version string) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failing[version]
}

func (p *plane) deploy(version string, failing float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing[version] = failing
}

// share is how much of 400 callers each version gets.
func (p *plane) share(version string) (float64, error) {
	versions, err := p.choose(keys(400))
	n := 0
	for _, v := range versions {
		if v == version {
			n++
		}
	}
	return float64(n) / 400, err
}

// gets waits until a version has a share between two bounds.
func (p *plane) gets(version string, least, most float64) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("%s gets %v to %v", version, least, most), func() error {
		got, err := p.share(version)
		if err == nil && (got < least || got > most) {
			err = fmt.Errorf("it gets %v", got)
		}
		return err
	})
}

func (p *plane) rollout(stable, canary, stages string) string {
	return fmt.Sprintf(`
agent: bot
stable: %s
canary: %s
traffic:
  driver: %s
  target: plane
  lease: 5s%s
metrics:
  provider: sql
  target: warehouse
  interval: 300ms
  definitions:
    error_rate:
      kind: ratio
      better: lower
      query: |
        SELECT version, count(*) FILTER (WHERE failed) AS events, count(*) AS trials FROM calls
        WHERE version = ANY(@versions) AND ended_at > @from AND ended_at <= @to GROUP BY version
rollback_criteria: {max_error_increase: 1.0}
canary_stages:
%s`, stable, canary, p.driver, p.object, stages)
}

const (
	shortStages = "  - {name: some, weight: 0.2, duration: 2s, min_requests: 40}\n  - {name: half, weight: 0.5, duration: 2s, min_requests: 100}\n"
	longStage   = "  - {name: watch, weight: 0.5, duration: 10m}\n"
)

// TestPlanesRollouts: on each plane, judged by a database, one rollout is promoted and the next one is taken back.
func TestPlanesRollouts(t *testing.T) {
	t.Parallel()
	for driver := range planes {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, driver)
			p.deploy("v41", 0.02)
			first := p.file("first.yaml", p.rollout("v41", "v42", shortStages))
			if out, code := p.starter("lint", "--live", first); code != 0 {
				t.Fatalf("what the rollout needs: code %d:\n%s", code, out)
			}
			broken := strings.Replace(p.rollout("v41", "v42", shortStages), "FROM calls", "FROM cals", 1)
			if out, code := p.starter("lint", "--live", p.file("broken.yaml", broken)); code != 1 || !strings.Contains(out, `relation "cals" does not exist`) {
				t.Errorf("a query that the database refuses: code %d:\n%s", code, out)
			}
			if out, code := p.starter("start", first, "--watch"); code != 0 || !strings.Contains(out, "promoted") {
				t.Fatalf("the good canary ended with code %d:\n%s", code, out)
			}
			p.gets("v42", 1, 1)
			p.deploy("v43", 0.5)
			out, code := p.starter("start", p.file("second.yaml", p.rollout("v42", "v43", shortStages)), "--watch")
			if code != 3 || !strings.Contains(out, "error_rate_increase") {
				t.Fatalf("the bad canary ended with code %d:\n%s", code, out)
			}
			p.gets("v42", 1, 1)
			if p.flags != "" {
				raw, err := os.ReadFile(p.flags)
				p.must(err)
				if !strings.Contains(string(raw), `"dark-mode":   {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"}`) {
					t.Errorf("another flag is not as it was:\n%s", raw)
				}
			}
		})
	}
}

// TestPlanesWithoutWorkers: when every worker is killed in the middle of a rollout, stable has all traffic once the lease is over: by the receiver
// itself, or by the guard. A worker that comes back goes on, and an abort takes the canary out.
func TestPlanesWithoutWorkers(t *testing.T) {
	t.Parallel()
	for driver := range planes {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, driver)
			p.start(p.rollout("v41", "v42", longStage))
			p.until("bot", "half of the traffic", func(s rollout.Status) bool { return s.Phase == rollout.Observing && s.Weight == 5000 })
			p.gets("v42", 0.3, 0.7)
			p.worker.Kill()
			killed := time.Now()
			p.gets("v41", 1, 1)
			t.Logf("%s: stable has all %s after the last worker was killed; the lease was 5s", driver, time.Since(killed).Round(10*time.Millisecond))
			p.startWorker()
			p.gets("v42", 0.3, 0.7)
			if out, code := p.starter("abort", "bot"); code != 0 {
				t.Fatalf("abort: code %d:\n%s", code, out)
			}
			p.until("bot", "aborted", func(s rollout.Status) bool { return s.Phase == rollout.Aborted })
			p.gets("v41", 1, 1)
		})
	}
}

// TestPlanesDrift: a flag that somebody changes by hand is put back once; the second time the rollout pauses, says so and leaves it alone. An
// abort takes it all the same.
func TestPlanesDrift(t *testing.T) {
	t.Parallel()
	p := newPlane(t, "flagd")
	p.start(p.rollout("v41", "v42", longStage))
	p.until("bot", "half of the traffic", func(s rollout.Status) bool { return s.Phase == rollout.Observing && s.Weight == 5000 })
	p.gets("v42", 0.3, 0.7)
	p.takeOver()
	p.gets("v42", 0.3, 0.7)
	p.until("bot", "it is told", func(s rollout.Status) bool { return p.decided("drift") == nil })
	p.takeOver()
	s := p.until("bot", "a pause", func(s rollout.Status) bool { return s.Paused != nil })
	if !strings.Contains(s.Paused.Reason, "the flag is not as it was set") {
		t.Errorf("paused because of %q", s.Paused.Reason)
	}
	if got, err := p.share("v42"); err != nil || got < 0.8 {
		t.Errorf("while paused the canary gets %v, %v; want what somebody set", got, err)
	}
	if out, code := p.starter("abort", "bot"); code != 0 {
		t.Fatalf("abort: code %d:\n%s", code, out)
	}
	p.until("bot", "aborted", func(s rollout.Status) bool { return s.Phase == rollout.Aborted })
	p.gets("v41", 1, 1)
}

var canaryShare = regexp.MustCompile(`("canary",\s*)5000`)

// takeOver gives the canary nearly all, by hand.
func (p *plane) takeOver() {
	p.t.Helper()
	raw, err := os.ReadFile(p.flags)
	p.must(err)
	changed := canaryShare.ReplaceAllString(string(raw), "${1}95000")
	if changed == string(raw) {
		p.t.Fatalf("there is nothing to change in %s", raw)
	}
	p.must(os.WriteFile(p.flags, []byte(changed), 0o600))
}

// decided is nil once there is a decision of the kind.
func (p *plane) decided(kind string) error {
	out, code := p.starter("decisions", "bot")
	if code != 0 || !strings.Contains(out, kind) {
		return errors.New(out)
	}
	return nil
}
