package proxy

import (
	"bufio"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// TestQueuedForACanaryThatIsTakenBack: what waited for the canary when it was taken back is asked of stable, and nothing of the canary.
func TestQueuedForACanaryThatIsTakenBack(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	release := make(chan struct{})
	w := newWorldOf(t, router.AgentOptions{Stable: "v41", Limits: upstream.Limits{Concurrency: 1, Queue: 5}, Versions: map[string]api.Version{
		"v41": {URL: serve(t, echoHeaders)},
		"v42": {URL: serve(t, func(http.ResponseWriter, *http.Request) {
			asked.Add(1)
			<-release
		})},
	}})
	w.route(10000, 1)
	first, second := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(first)
		w.get("/")
	}()
	eventually(t, "the canary is busy", func() bool { return asked.Load() == 1 })
	d, err := w.router.Decide(agent, router.Request{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		resp, body := w.get("/", "X-Aviary-Pin", string(w.router.AppendPin(nil, &d)))
		second <- resp.Header.Get("X-Agent-Version") + " " + body
	}()
	eventually(t, "a request waits for it", func() bool { return d.Upstreams().Queued() == 1 })
	w.rollback(2, api.Evict)
	close(release)
	contains(t, <-second, "v41 GET /", "X-Conversation-Migrated-From: v42")
	<-first
	if asked.Load() != 1 {
		t.Errorf("the canary was asked %d times, want once", asked.Load())
	}
	if c := w.counter("v41"); c.Requests != 1 || c.Errors != 0 {
		t.Errorf("stable's counter: %+v", c)
	}
	if set := d.Upstreams(); set.Queued() != 0 {
		t.Errorf("%d still wait", set.Queued())
	}
}

// TestHalfSentToACanaryThatIsTakenBack: a client that is slow to send its small body is not late at the canary, unless it may finish there.
func TestHalfSentToACanaryThatIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, policy string
		begun        bool
		want         string
	}{
		{"evict", api.Evict, true, "stable"},
		{"drain a conversation that had begun", api.Drain, true, "canary"},
		{"drain a new conversation", api.Drain, false, "stable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, say("stable"), say("canary"))
			w.route(10000, 1)
			pin := ""
			if tt.begun {
				resp, _ := w.get("/", "X-Conversation-ID", "talk")
				pin = "X-Aviary-Pin: " + resp.Header.Get("X-Aviary-Pin") + "\r\n"
			}
			conn := w.dial()
			io.WriteString(conn, "POST /agents/"+agent+"/ HTTP/1.1\r\nHost: x\r\nX-Conversation-ID: talk\r\n"+pin+"Content-Length: 8\r\n\r\nhalf")
			eventually(t, "the proxy has the header", func() bool { return w.proxy.live.Load() == 1 })
			w.rollback(2, tt.policy)
			io.WriteString(conn, "sent")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != tt.want {
				t.Errorf("answered by %q, %v; want %s", body, err, tt.want)
			}
		})
	}
}
