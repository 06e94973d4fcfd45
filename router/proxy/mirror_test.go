package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// mirror copies share basis points of stable's requests to the canary.
func (w *world) mirror(share int, revision int64) {
	w.t.Helper()
	w.set(api.Route{Stable: "v41", Canary: "v42", Mirror: share, Owner: "o", Revision: revision})
}

func TestMirrorCopiesAndTellsNobody(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var copies []string
	w := newWorld(t, func(rw http.ResponseWriter, req *http.Request) {
		raw, _ := io.ReadAll(req.Body)
		if req.Header.Get("X-Aviary-Mirror") != "" {
			t.Error("stable was told that it is a copy")
		}
		fmt.Fprintf(rw, "stable %s", raw)
	}, func(rw http.ResponseWriter, req *http.Request) {
		raw, _ := io.ReadAll(req.Body)
		mu.Lock()
		defer mu.Unlock()
		copies = append(copies, fmt.Sprintf("%s %s %s mirror=%s pin=%s cookie=%s auth=%s", req.Method, req.URL, raw,
			req.Header.Get("X-Aviary-Mirror"), req.Header.Get("X-Aviary-Pin"), req.Header.Get("Cookie"), req.Header.Get("Authorization")))
		rw.Header().Set("X-Agent-Task", "failed")
		rw.WriteHeader(http.StatusInternalServerError)
		io.WriteString(rw, "canary")
	})
	w.mirror(10000, 1)
	first, _ := w.get("/")
	for range 9 {
		resp, body := w.do(http.MethodPost, "/chat?q=1", strings.NewReader("hi"), "X-Conversation-ID", "c", "Authorization", "Bearer user",
			"X-Aviary-Pin", first.Header.Get("X-Aviary-Pin"), "Cookie", "aviary_pin=x; session=7; aviary_key=k", "X-Aviary-Mirror", "1")
		if resp.StatusCode != 200 || body != "stable hi" || resp.Header.Get("X-Agent-Version") != "v41" {
			t.Fatalf("answer %d %q by %s", resp.StatusCode, body, resp.Header.Get("X-Agent-Version"))
		}
	}
	eventually(t, "all copies are counted", func() bool { return w.counter("v42").Requests == 10 })
	c := w.counter("v42")
	if c.Errors != 10 || c.Tasks.Failed != 10 || c.Conversations != 0 {
		t.Errorf("of the canary counted %+v: want its errors and failed tasks, and no conversation", c)
	}
	if c := w.counter("v41"); c.Requests != 10 || c.Errors != 0 || c.Conversations == 0 {
		t.Errorf("of stable counted %+v", c)
	}
	mu.Lock()
	defer mu.Unlock()
	const want = "POST /chat?q=1 hi mirror=1 pin= cookie=session=7 auth=Bearer user"
	for _, got := range copies[1:] {
		if got != want {
			t.Errorf("copy %q, want %q", got, want)
		}
	}
}

func TestMirrorSharesWholeConversations(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	w := newWorld(t, say("stable"), func(_ http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[req.Header.Get("X-Conversation-ID")]++
	})
	w.mirror(2500, 1)
	const conversations, turns = 200, 3
	for turn := range turns {
		for c := range conversations {
			w.get("/", "X-Conversation-ID", fmt.Sprintf("c-%d", c))
		}
		eventually(t, "the copies of the turn arrive", func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, n := range seen {
				if n != turn+1 {
					return false
				}
			}
			return len(seen) > 0
		})
	}
	// 200 at 25 %: 50, with a standard deviation of 6.
	if n := len(seen); n < 20 || n > 80 {
		t.Errorf("%d of %d conversations were copied, want about a quarter", n, conversations)
	}
}

func TestMirrorNeverDelaysOrBreaksStable(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var arrived atomic.Int64
	w := newWorld(t, say("stable"), func(http.ResponseWriter, *http.Request) {
		arrived.Add(1)
		<-release
	})
	t.Cleanup(func() { close(release) })
	w.mirror(10000, 1)
	for range maxCopies + 10 {
		if resp, body := w.get("/"); resp.StatusCode != 200 || body != "stable" {
			t.Fatalf("answer %d %q", resp.StatusCode, body)
		}
	}
	eventually(t, "copies beyond the bound are dropped", func() bool {
		return arrived.Load() == maxCopies && dropped(t, w, "busy") == 10
	})
	// The end of the mirror ends the copies under way, and they are nobody's errors.
	w.rollback(2, api.Evict)
	eventually(t, "the copies end", func() bool { return len(w.proxy.copies) == 0 })
	if c := w.counter("v42"); c.Errors != 0 {
		t.Errorf("%d errors of copies that Aviary ended", c.Errors)
	}
	w.get("/")
	if n := arrived.Load(); n != maxCopies {
		t.Errorf("%d copies arrived, want none after the rollback", n-maxCopies)
	}
}

func TestWhatIsNotMirrored(t *testing.T) {
	t.Parallel()
	var copies atomic.Int64
	w := newWorld(t, func(_ http.ResponseWriter, req *http.Request) { io.Copy(io.Discard, req.Body) },
		func(http.ResponseWriter, *http.Request) { copies.Add(1) })
	w.mirror(10000, 1)
	w.do(http.MethodPost, "/", bytes.NewReader(make([]byte, maxMirrorBody+1)))
	w.do(http.MethodPost, "/", io.MultiReader(bytes.NewReader(make([]byte, maxMirrorBody)), strings.NewReader("and more"))) // of unknown length
	eventually(t, "large bodies are dropped", func() bool { return dropped(t, w, "too_large") == 2 })
	w.do(http.MethodPost, "/", io.LimitReader(bytes.NewReader(make([]byte, maxMirrorBody)), maxMirrorBody))
	eventually(t, "what just fits is copied", func() bool { return copies.Load() == 1 })
	w.get("/", "Upgrade", "websocket", "Connection", "Upgrade")
	conn := w.dial()
	fmt.Fprintf(conn, "POST /agents/%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", agent)
	conn.Close()
	eventually(t, "a broken request is dropped", func() bool { return dropped(t, w, "broken") == 1 })
	if n := copies.Load(); n != 1 {
		t.Errorf("%d copies, want 1", n)
	}
}

func TestMirrorEndsWithItsLease(t *testing.T) {
	t.Parallel()
	var copies atomic.Int64
	w := newWorld(t, say("stable"), func(http.ResponseWriter, *http.Request) { copies.Add(1) })
	w.set(api.Route{Stable: "v41", Canary: "v42", Mirror: 10000, Owner: "o", Revision: 1, LeaseMillis: 50})
	eventually(t, "the lease runs out", func() bool {
		o, err := w.router.Observed(agent)
		return err == nil && o.LeaseExpired && o.Mirror == 0
	})
	before := copies.Load()
	for range 20 {
		w.get("/")
	}
	eventually(t, "nothing is under way", func() bool { return len(w.proxy.copies) == 0 })
	if n := copies.Load(); n != before {
		t.Errorf("%d copies after the lease", n-before)
	}
}

// dropped is how many copies were dropped for the reason, by the metrics.
func dropped(t *testing.T, w *world, reason string) int {
	t.Helper()
	return int(w.metric(`aviary_router_mirror_dropped_total`, "reason", reason))
}

func TestMirroredRequestsWaitForNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, say("stable"), func(http.ResponseWriter, *http.Request) { time.Sleep(time.Millisecond) })
	w.mirror(10000, 1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				w.get("/")
			}
		})
	}
	wg.Wait()
	eventually(t, "every request is copied or dropped", func() bool {
		return int(w.counter("v42").Requests)+dropped(t, w, "busy") == 400
	})
}
