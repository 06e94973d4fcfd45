package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// nobody is an address where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// spread is a gateway whose stable version runs at the URLs, within limits.
func spread(t *testing.T, limits upstream.Limits, timeouts Timeouts, urls ...string) *world {
	t.Helper()
	options := router.AgentOptions{Stable: "v41", Versions: map[string]api.Version{"v41": {URLs: urls}}, Limits: limits}
	return newWorldOf(t, options, func(o *Options) { o.Timeouts = map[string]Timeouts{agent: timeouts} })
}

func TestInstancesShareTheRequests(t *testing.T) {
	t.Parallel()
	var counts [3]atomic.Int64
	release := make(chan struct{})
	var urls []string
	for i := range counts {
		urls = append(urls, serve(t, func(http.ResponseWriter, *http.Request) {
			counts[i].Add(1)
			<-release
		}))
	}
	w := spread(t, upstream.Limits{}, Timeouts{}, urls...)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() { w.get("/") })
		before := counts[0].Load() + counts[1].Load() + counts[2].Load()
		eventually(t, "the request arrives", func() bool { return counts[0].Load()+counts[1].Load()+counts[2].Load() > before })
	}
	for i := range counts {
		if n := counts[i].Load(); n != 10 {
			t.Errorf("instance %d has %d of 30 requests under way, want 10", i, n)
		}
	}
	close(release)
	wg.Wait()
}

func TestUnreachableInstanceIsPassedOver(t *testing.T) {
	t.Parallel()
	var bodies sync.Map
	var arrived atomic.Int64
	w := spread(t, upstream.Limits{}, Timeouts{}, nobody(t), serve(t, func(rw http.ResponseWriter, req *http.Request) {
		raw, _ := io.ReadAll(req.Body)
		bodies.Store(string(raw)+req.URL.Path+"?"+req.URL.RawQuery, true)
		arrived.Add(1)
	}))
	for range 40 {
		if resp, body := w.do(http.MethodPost, "/pay%2Fnow?q=1", strings.NewReader("once")); resp.StatusCode != 200 {
			t.Fatalf("answer %d %s", resp.StatusCode, body)
		}
	}
	if n := arrived.Load(); n != 40 {
		t.Errorf("%d requests arrived, want 40: each once", n)
	}
	if _, ok := bodies.Load("once/pay/now?q=1"); !ok {
		t.Error("the request changed on its way to the second instance")
	}
	if c := w.counter("v41"); c.Requests != 40 || c.Errors != 0 {
		t.Errorf("counted %d requests, %d errors", c.Requests, c.Errors)
	}
	eventually(t, "the dead instance is left out", func() bool {
		w.get("/")
		d, err := w.router.Decide(agent, router.Request{})
		if err != nil {
			t.Fatal(err)
		}
		all := d.Upstreams().Status()
		return !all[0].Healthy && all[1].Healthy
	})
}

func TestVersionThatCantBeReachedFailsFast(t *testing.T) {
	t.Parallel()
	w := spread(t, upstream.Limits{}, Timeouts{}, nobody(t))
	var refused *http.Response
	for range 10 {
		refused, _ = w.do(http.MethodPost, "/", strings.NewReader("x"))
		if refused.StatusCode == http.StatusServiceUnavailable {
			break
		}
		if refused.StatusCode != http.StatusBadGateway {
			t.Fatalf("answer %d", refused.StatusCode)
		}
	}
	if refused.StatusCode != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" {
		t.Errorf("answer %d, Retry-After %q: want 503 at once, and when to come again", refused.StatusCode, refused.Header.Get("Retry-After"))
	}
	if c := w.counter("v41"); c.Requests != c.Errors || c.Requests == 0 {
		t.Errorf("counted %d requests, %d errors: all of them failed", c.Requests, c.Errors)
	}
}

// TestRequestThatMayHaveArrivedIsNotSentAgain: an agent that dies in the middle of a request has perhaps acted on it.
func TestRequestThatMayHaveArrivedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	dies := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		arrived.Add(1)
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	w := spread(t, upstream.Limits{}, Timeouts{}, dies, dies+"/second")
	if resp, _ := w.do(http.MethodPost, "/", strings.NewReader("pay")); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("answer %d, want 502", resp.StatusCode)
	}
	if n := arrived.Load(); n != 1 {
		t.Errorf("%d requests arrived, want 1", n)
	}
}

// TestStaleConnectionsDoubleNothing: the agent closes connections as soon as they are idle, so that many requests meet one that is just closing.
func TestStaleConnectionsDoubleNothing(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		arrived.Add(1)
	}))
	s.Config.IdleTimeout = time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	w := spread(t, upstream.Limits{}, Timeouts{}, s.URL)
	answered := int64(0)
	for i := range 300 {
		resp, _ := w.do(http.MethodPost, "/", bytes.NewReader([]byte("pay")))
		if resp.StatusCode == 200 {
			answered++
		}
		if i%3 == 0 {
			runtime.Gosched()
			time.Sleep(time.Millisecond) // just as long as the agent waits
		}
	}
	if n := arrived.Load(); n < answered || n > 300 {
		t.Errorf("%d requests arrived, %d were answered, 300 were sent", n, answered)
	}
	if answered < 200 {
		t.Errorf("only %d of 300 were answered", answered)
	}
}

func TestQueue(t *testing.T) {
	t.Parallel()
	var live, most atomic.Int64
	release := make(chan struct{})
	w := spread(t, upstream.Limits{Concurrency: 2, Queue: 3, Wait: time.Minute}, Timeouts{}, serve(t, func(http.ResponseWriter, *http.Request) {
		n := live.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		live.Add(-1)
	}))
	var wg sync.WaitGroup
	var ok, busy atomic.Int64
	ask := func() {
		resp, body := w.get("/")
		switch {
		case resp.StatusCode == 200:
			ok.Add(1)
		case resp.StatusCode == 503 && resp.Header.Get("Retry-After") != "" && strings.Contains(body, "version_busy"):
			busy.Add(1)
		default:
			t.Errorf("answer %d %s", resp.StatusCode, body)
		}
	}
	for range 5 {
		wg.Go(ask)
	}
	d, err := w.router.Decide(agent, router.Request{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "two are served and three wait", func() bool { return live.Load() == 2 && d.Upstreams().Queued() == 3 })
	ask()
	ask()
	close(release)
	wg.Wait()
	if ok.Load() != 5 || busy.Load() != 2 || most.Load() != 2 {
		t.Errorf("%d answered, %d turned away, %d at once; want 5, 2 and 2", ok.Load(), busy.Load(), most.Load())
	}
	if c := w.counter("v41"); c.Requests != 7 || c.Errors != 2 {
		t.Errorf("counted %d requests, %d errors, want 7 and 2", c.Requests, c.Errors)
	}
	if full, late := d.Upstreams().TurnedAway(); full != 2 || late != 0 {
		t.Errorf("turned away %d and %d, want 2 and 0", full, late)
	}
}

func TestClientThatLeavesTheQueue(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var arrived atomic.Int64
	w := spread(t, upstream.Limits{Concurrency: 1, Queue: 5, Wait: time.Minute}, Timeouts{}, serve(t, func(http.ResponseWriter, *http.Request) {
		arrived.Add(1)
		<-release
	}))
	var wg sync.WaitGroup
	wg.Go(func() { w.get("/") })
	eventually(t, "the first arrives", func() bool { return arrived.Load() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		_, err := w.client.Do(req)
		gone <- err
	}()
	d, err := w.router.Decide(agent, router.Request{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second waits", func() bool { return d.Upstreams().Queued() == 1 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	eventually(t, "nobody waits", func() bool { return d.Upstreams().Queued() == 0 })
	close(release)
	wg.Wait()
	eventually(t, "both are counted", func() bool { return w.counter("v41").Requests == 2 })
	if c := w.counter("v41"); arrived.Load() != 1 || c.Errors != 0 {
		t.Errorf("%d arrived, %d errors: a client that went away is nobody's fault", arrived.Load(), c.Errors)
	}
}

func TestAgentsOwnTimeouts(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }
	stall := func(events bool) http.HandlerFunc {
		return func(rw http.ResponseWriter, req *http.Request) {
			if events {
				rw.Header().Set("Content-Type", "text/event-stream")
			}
			io.WriteString(rw, "data: begun\n\n")
			http.NewResponseController(rw).Flush()
			<-req.Context().Done()
		}
	}
	t.Run("header", func(t *testing.T) {
		t.Parallel()
		w := spread(t, upstream.Limits{}, Timeouts{Header: 50 * time.Millisecond}, serve(t, hang))
		if resp, _ := w.get("/"); resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("answer %d, want 504", resp.StatusCode)
		}
	})
	t.Run("idle event stream", func(t *testing.T) {
		t.Parallel()
		w := spread(t, upstream.Limits{}, Timeouts{Idle: 50 * time.Millisecond}, serve(t, stall(true)))
		_, body := w.get("/")
		contains(t, body, "data: begun\n\n", "event: error\n", "gateway_timeout")
		if c := w.counter("v41"); c.Requests != 1 || c.Errors != 1 {
			t.Errorf("counted %d requests, %d errors", c.Requests, c.Errors)
		}
	})
	t.Run("idle download", func(t *testing.T) {
		t.Parallel()
		w := spread(t, upstream.Limits{}, Timeouts{Idle: 50 * time.Millisecond}, serve(t, stall(false)))
		resp, err := w.client.Get(w.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if raw, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a broken off answer looks complete: %q", raw)
		}
	})
	t.Run("slow but alive", func(t *testing.T) {
		t.Parallel()
		w := spread(t, upstream.Limits{}, Timeouts{Idle: 5 * time.Second}, serve(t, func(rw http.ResponseWriter, _ *http.Request) {
			for range 5 {
				io.WriteString(rw, "part ")
				http.NewResponseController(rw).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		}))
		if _, body := w.get("/"); body != strings.Repeat("part ", 5) {
			t.Errorf("body %q", body)
		}
	})
}

// TestLargeBodiesAreNotKept sends 256 MiB each way through a proxy whose memory must stay small.
func TestLargeBodiesAreNotKept(t *testing.T) {
	const size = 256 << 20
	w := spread(t, upstream.Limits{}, Timeouts{}, serve(t, func(rw http.ResponseWriter, req *http.Request) {
		n, err := io.Copy(io.Discard, req.Body)
		if err != nil || n != size {
			t.Errorf("%d bytes arrived, %v", n, err)
		}
		io.CopyN(rw, endless{}, size)
	}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	req, err := http.NewRequest(http.MethodPost, w.url("/"), io.LimitReader(endless{}, size))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != size {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > size/8 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

// endless is an endless body.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestNoConnectionLeftIsNoInstancesFault: a gateway that is out of file descriptors does not leave out every instance, one after the other.
func TestNoConnectionLeftIsNoInstancesFault(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{syscall.EMFILE: false, syscall.ENFILE: false, syscall.EADDRNOTAVAIL: false, syscall.ENOBUFS: false,
		syscall.ECONNREFUSED: true, syscall.EHOSTUNREACH: true} {
		w := spread(t, upstream.Limits{}, Timeouts{}, "http://127.0.0.1:1")
		d, decided := w.router.Decide(agent, router.Request{})
		if decided != nil {
			t.Fatal(decided)
		}
		dialer := &dialer{net.Dialer{Control: func(string, string, syscall.RawConn) error { return os.NewSyscallError("socket", err) }}}
		ctx := context.WithValue(t.Context(), exchangeKey{}, &exchange{decision: d})
		var failed *dialError
		for range 5 {
			if _, got := dialer.dial(ctx, "tcp", "127.0.0.1:1"); !errors.Is(got, err) || errors.As(got, &failed) != want {
				t.Errorf("%v: %v, blamed on the instance: %t, want %t", err, got, !want, want)
			}
		}
		if leftOut := d.Upstreams().Pick() == nil; leftOut != want {
			t.Errorf("%v: left out: %t, want %t", err, leftOut, want)
		}
	}
}
