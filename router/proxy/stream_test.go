package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
)

// eventStream sends what comes from events, each flushed, until the client goes or events is closed. It tells gone about the former.
func eventStream(events <-chan string, gone chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for {
			select {
			case e, ok := <-events:
				if !ok {
					return
				}
				io.WriteString(w, e)
				w.(http.Flusher).Flush()
			case <-req.Context().Done():
				gone <- struct{}{}
				return
			}
		}
	}
}

// open starts a request and returns the answer with its body unread.
func (w *world) open(ctx context.Context, headers ...string) *http.Response {
	w.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url("/stream"), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestEventsPassOneByOne(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"text/event-stream", "application/octet-stream"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			next := make(chan struct{})
			w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", kind)
				for i := range 5 {
					fmt.Fprintf(rw, "data: %d\n\n", i)
					rw.(http.Flusher).Flush()
					<-next // not a byte more until the client has this event
				}
			}, say(""))
			resp := w.open(limited(t))
			lines := bufio.NewReader(resp.Body)
			for i := range 5 {
				line, err := lines.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("event %d: %q, %v", i, line, err)
				}
				if _, err := lines.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				if n := w.counter("v41").Requests; n != 0 {
					t.Fatal("counted before its end")
				}
				next <- struct{}{}
			}
			if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
				t.Errorf("at the end: %q, %v", rest, err)
			}
			if n := w.counter("v41").Requests; n != 1 {
				t.Errorf("%d requests counted, want 1", n)
			}
		})
	}
}

func TestClientThatGoesIsHeardByTheAgent(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 1)
	events := make(chan string, 1)
	w := newWorld(t, eventStream(events, gone), say(""))
	ctx, cancel := context.WithCancel(limited(t))
	resp := w.open(ctx)
	events <- "data: x\n\n"
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the agent was not told")
	}
	eventually(t, "the request is counted", func() bool { return w.counter("v41").Requests == 1 })
	if n := w.counter("v41").Errors; n != 0 {
		t.Errorf("%d errors counted against the agent", n)
	}
}

func TestKillEndsLiveStreams(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ sent, rest string }{
		"between events":       {"data: one\n\n", "event: error\ndata: "},
		"in the middle of one": {"data: one\n\ndata: tw", "\nevent: error\ndata: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone, events := make(chan struct{}, 1), make(chan string, 1)
			w := newWorld(t, say("stable"), eventStream(events, gone))
			w.route(10000, 1)
			resp := w.open(limited(t))
			events <- tt.sent
			got := make([]byte, len(tt.sent))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != tt.sent {
				t.Fatalf("first event: %q, %v", got, err)
			}
			w.rollback(2, api.Kill)
			rest, err := io.ReadAll(resp.Body)
			if err != nil || !strings.HasPrefix(string(rest), tt.rest) || !strings.HasSuffix(string(rest), "}\n\n") {
				t.Errorf("at the end: %q, %v", rest, err)
			}
			select {
			case <-gone:
			case <-time.After(10 * time.Second):
				t.Error("the agent was not told")
			}
			if c := w.counter("v42"); c.Requests != 1 || c.Errors != 0 {
				t.Errorf("counted %d requests, %d errors: want 1, 0", c.Requests, c.Errors)
			}
			if _, body := w.get("/"); body != "stable" {
				t.Errorf("afterwards: %q", body)
			}
		})
	}
}

func TestKillCutsWhatIsNoEventStream(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	w := newWorld(t, say("stable"), func(rw http.ResponseWriter, req *http.Request) {
		io.WriteString(rw, "some")
		rw.(http.Flusher).Flush()
		close(started)
		<-req.Context().Done()
	})
	w.route(10000, 1)
	resp := w.open(limited(t))
	<-started
	w.rollback(2, api.Kill)
	if rest, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a cut answer looks whole: %q", rest)
	}
}

func TestKillAnswersWhoWaitsForAHeader(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	w := newWorld(t, say("stable"), func(_ http.ResponseWriter, req *http.Request) {
		close(started)
		<-req.Context().Done()
	})
	w.route(10000, 1)
	go func() {
		<-started
		w.rollback(2, api.Kill)
	}()
	resp, body := w.get("/")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "version_withdrawn") {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
	// Aviary ended it, so neither provider may take it for the canary's error.
	if c := w.counter("v42"); c.Requests != 1 || c.Errors != 0 {
		t.Errorf("counted %d requests, %d errors of the canary, want 1 and 0", c.Requests, c.Errors)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.router.Collector())
	text, err := testutil.CollectAndFormat(registry, expfmt.TypeTextPlain, "agent_requests_total")
	if err != nil || strings.Contains(string(text), `code="5`) {
		t.Errorf("a code of 500 or above is exported (%v):\n%s", err, text)
	}
}

func TestEvictLetsLiveStreamsFinish(t *testing.T) {
	t.Parallel()
	events := make(chan string, 1)
	w := newWorld(t, say("stable"), eventStream(events, make(chan struct{}, 1)))
	w.route(10000, 1)
	resp := w.open(limited(t))
	w.rollback(2, api.Evict)
	events <- "data: last\n\n"
	close(events)
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "data: last\n\n" {
		t.Errorf("stream: %q, %v", got, err)
	}
}

func TestAgentThatBreaksOffCountsAsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		io.WriteString(rw, "half of")
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, say(""))
	resp := w.open(limited(t))
	if got, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("half an answer looks whole: %q", got)
	}
	eventually(t, "the error is counted", func() bool { return w.counter("v41").Errors == 1 })
}

func TestTrailersAndTheirFeedback(t *testing.T) {
	t.Parallel()
	answer := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Trailer", "X-Agent-Task, X-Sum")
		rw.Header().Set("X-Agent-Tokens", "120")
		io.WriteString(rw, "hello")
		rw.(http.Flusher).Flush()
		rw.Header().Set("X-Agent-Task", "failed")
		rw.Header().Set("X-Sum", "5")
		rw.Header().Set(http.TrailerPrefix+"X-Agent-Safety-Violation", "pii") // not announced
	}
	for name, tt := range map[string]struct {
		keep    bool
		trailer http.Header
	}{
		"taken out": {false, http.Header{"X-Sum": {"5"}}},
		"kept":      {true, http.Header{"X-Sum": {"5"}, "X-Agent-Task": {"failed"}, "X-Agent-Safety-Violation": {"pii"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, answer, say(""), func(o *Options) { o.KeepFeedback = tt.keep })
			resp, body := w.get("/")
			if body != "hello" || (resp.Header.Get("X-Agent-Tokens") == "120") != tt.keep {
				t.Errorf("body %q, header %v", body, resp.Header)
			}
			if diff := cmp.Diff(tt.trailer, resp.Trailer); diff != "" {
				t.Errorf("trailer (-want +got):\n%s", diff)
			}
			c := w.counter("v41")
			if c.Tasks.Failed != 1 || c.SafetyViolations["pii"] != 1 || c.Tokens != (api.Mean{Sum: 120, Count: 1}) {
				t.Errorf("counter %+v", c)
			}
		})
	}
}

func TestTestersFeedbackIsNotCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("X-Agent-Safety-Violation", "pii") }, say(""))
	token := w.router.Keys().OverrideToken(agent, "v41", time.Now().Add(time.Hour))
	resp, _ := w.get("/", "X-Canary", "true", "X-Canary-Token", token)
	if c := w.counter("v41"); len(c.SafetyViolations) != 0 || c.Requests != 0 || resp.Header.Get("X-Agent-Safety-Violation") != "" {
		t.Errorf("counter %+v, header %v", c, resp.Header)
	}
}

func TestLargeBodiesPassUnbuffered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, req *http.Request) {
		rc := http.NewResponseController(rw)
		if err := rc.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 1)
		for {
			if _, err := req.Body.Read(buf); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				return
			}
			rw.Write(buf)
			rc.Flush()
		}
	}, say(""))
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(limited(t), http.MethodPost, w.url("/"), pr)
	if err != nil {
		t.Fatal(err)
	}
	go pw.Write([]byte("a"))
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 1)
	for _, c := range "abc" {
		if c != 'a' {
			if _, err := pw.Write([]byte(string(c))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(resp.Body, buf); err != nil || rune(buf[0]) != c {
			t.Fatalf("echo of %c: %q, %v", c, buf, err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

func TestTimeToFirstByteIsTheBodys(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		rw.(http.Flusher).Flush()
		<-next
		io.WriteString(rw, "data: x\n\n")
		rw.(http.Flusher).Flush()
		<-next
	}, say(""))
	resp := w.open(limited(t))
	pause := func() {
		timer := time.NewTimer(60 * time.Millisecond)
		defer timer.Stop()
		<-timer.C
		next <- struct{}{}
	}
	pause()
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	pause()
	if _, err := io.ReadAll(lines); err != nil {
		t.Fatal(err)
	}
	bounds := router.Bounds()
	where := func(counts []int64) float64 {
		for i, n := range counts {
			if n > 0 && i < len(bounds) {
				return bounds[i]
			}
		}
		return -1
	}
	c := w.counter("v41")
	if first, end := where(c.TTFB), where(c.Latency); first < 0.06 || end < 0.12 || end <= first {
		t.Errorf("first byte up to %v s, end up to %v s: want at least 0.06 and 0.12", first, end)
	}
}
