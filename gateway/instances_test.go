package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// TestInstancesLimitsAndTimeouts drives a version of two instances, one request at a time each way the settings say, and takes
// over other limits and timeouts while it runs.
func TestInstancesLimitsAndTimeouts(t *testing.T) {
	t.Parallel()
	var arrived [2]atomic.Int64
	release := make(chan struct{})
	var urls []string
	for i := range arrived {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/stall" {
				rw.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(rw, "data: begun\n\n")
				http.NewResponseController(rw).Flush()
				<-req.Context().Done()
				return
			}
			arrived[i].Add(1)
			<-release
		}))
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	settings := settingsFile(t, t.TempDir(), urls[0], "    limits: {concurrency: 2}\n")
	edit(t, settings, "v41: {url: "+urls[0]+"/v41}", "v41: {urls: ["+strings.Join(urls, ", ")+"]}")
	p := start(t, settings)
	done := sync.OnceFunc(func() { close(release) })
	t.Cleanup(done) // before the agents close, which waits for their answers
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + p.proxy + "/agents/support-agent" + path)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return resp.StatusCode, string(raw)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if code, body := get("/wait"); code != 200 {
				t.Errorf("answer %d %s", code, body)
			}
		})
	}
	eventually(t, "two requests are under way", func() bool { return arrived[0].Load()+arrived[1].Load() == 2 })
	if code, body := get("/wait"); code != http.StatusServiceUnavailable || !strings.Contains(body, "version_busy") {
		t.Errorf("a third request: %d %s", code, body)
	}
	if known, err := p.client.Agents(t.Context()); err != nil || len(known.Agents[0].Versions["v41"].URLs) != 2 {
		t.Errorf("the registry has %+v, %v", known, err)
	}
	if resp, err := http.Get("http://" + p.admin + "/metrics"); err != nil {
		t.Error(err)
	} else {
		raw, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for _, line := range []string{
			`aviary_router_upstream_healthy{agent="support-agent",upstream="` + urls[1] + `",version="v41"} 1`,
			`aviary_router_queued_requests{agent="support-agent",version="v41"} 0`,
			`aviary_router_turned_away_total{agent="support-agent",reason="queue_full",version="v41"} 1`,
		} {
			if !strings.Contains(string(raw), line) {
				t.Errorf("the metrics have no %s", line)
			}
		}
	}

	edit(t, settings, "limits: {concurrency: 2}", "timeouts: {idle_stream: 50ms}")
	brief := http.Client{Timeout: time.Second} // a request that came while the settings were taken over has the timeouts of before
	eventually(t, "an event stream that stands still is ended", func() bool {
		resp, err := brief.Get("http://" + p.proxy + "/agents/support-agent/stall")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == 200 && strings.Contains(string(raw), "event: error\n")
	})
	wg.Go(func() { get("/wait") })
	wg.Go(func() { get("/wait") })
	eventually(t, "the limit is lifted", func() bool { return arrived[0].Load()+arrived[1].Load() == 4 })
	done()
	wg.Wait()
	if a, b := arrived[0].Load(), arrived[1].Load(); a != 2 || b != 2 {
		t.Errorf("the instances got %d and %d requests, want 2 each", a, b)
	}
	if _, err := p.client.PutVersion(t.Context(), "support-agent", "v43", api.Version{URLs: []string{"h2c://127.0.0.1:1", "http://127.0.0.1:2"}}); err != nil {
		t.Errorf("a version by the admin API: %v", err)
	}
}
