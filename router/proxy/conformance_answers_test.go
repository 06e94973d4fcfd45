package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// rawAgent answers a request for /last by "last", any other by the bytes given, and then goes on with the same connection unless
// hangUp. It counts the requests.
type rawAgent struct {
	answer string
	hangUp bool
	asked  atomic.Int64
}

func (a *rawAgent) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.converse(c)
		}
	}()
	return "http://" + l.Addr().String()
}

func (a *rawAgent) converse(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		a.asked.Add(1)
		if req.URL.Path == "/last" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast")
			continue
		}
		io.WriteString(c, a.answer)
		if a.hangUp {
			return
		}
	}
}

const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

// answers are of an agent to GET /a. Whatever they are, the next request on the client's connection gets its own answer, and
// nothing of the agent's that lies behind an answer.
var answers = []struct {
	name, raw string
	hangUp    bool
	method    string // GET unless given
	status    []int  // of the answer to /a, interim ones first; -1 at the end: cut short, and the connection ended; none: ended at once
	body      string
}{
	{"length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "", []int{200}, "ok"},
	{"length twice, the same", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", false, "", []int{200}, "ok"},
	{"length twice, not the same", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 50\r\n\r\nok" + evil, false, "", []int{502}, ""},
	{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", false, "", []int{502}, ""},
	{"length beyond 64 bits", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok", false, "", []int{502}, ""},
	{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, "", []int{200}, "ok"},
	{"chunked and identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, "", []int{502}, ""},
	{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, "", []int{502}, ""},
	{"space before the colon", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true, "", []int{200}, "2\r\nok\r\n0\r\n\r\n"},
	{"longer than its length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil, false, "", []int{200}, "ok"},
	{"shorter than its length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", true, "", []int{}, ""},
	{"until the end", "HTTP/1.1 200 OK\r\n\r\nok", true, "", []int{200}, "ok"},
	{"HTTP/1.0 until the end", "HTTP/1.0 200 OK\r\n\r\nok", true, "", []int{200}, "ok"},
	{"chunk cut short", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", true, "", []int{200, -1}, ""},
	{"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, "", []int{200, -1}, ""},
	{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n", false, "", []int{200, -1}, ""},
	{"chunk longer than it says", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", false, "", []int{200, -1}, ""},
	{"nothing", "", true, "", []int{502}, ""},
	{"no HTTP", "hello\r\n\r\n", true, "", []int{502}, ""},
	{"bad status", "HTTP/1.1 2OO OK\r\n\r\n", true, "", []int{502}, ""},
	{"status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", true, "", []int{502}, ""},
	{"NUL in a name", "HTTP/1.1 200 OK\r\nX-\x00A: b\r\nContent-Length: 2\r\n\r\nok", false, "", []int{502}, ""},
	{"folded header", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", false, "", []int{200}, "ok"},
	{"bare CR in a value", "HTTP/1.1 200 OK\r\nX-A: b\rX-Injected: c\r\nContent-Length: 2\r\n\r\nok", false, "", []int{502}, ""},

	{"204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok" + evil, false, "", []int{204}, ""},
	{"204, chunked", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, "", []int{204}, ""},
	{"304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nETag: \"x\"\r\n\r\nok" + evil, false, "", []int{304}, ""},
	{"304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", false, "", []int{304}, ""},
	{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false, http.MethodHead, []int{200}, ""},
	{"HEAD with a body", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil, false, http.MethodHead, []int{200}, ""},
	{"HEAD, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, http.MethodHead, []int{200}, ""},

	{"103", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "", []int{103, 200}, "ok"},
	{"102 and 103", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "",
		[]int{102, 103, 200}, "ok"},
	{"100 unasked", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "", []int{100, 200}, "ok"},
	{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + evil, false, "", []int{502}, ""},
	{"interim answers without end", strings.Repeat("HTTP/1.1 102 Processing\r\nX-A: "+strings.Repeat("a", 4000)+"\r\n\r\n", 5000), true, "", nil, ""},
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range answers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := &rawAgent{answer: tt.raw, hangUp: tt.hangUp}
			w := newStrict(t, a.serve(t))
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			statuses, responses, bodies := w.converse(fmt.Sprintf("%s /agents/%s/a HTTP/1.1\r\nHost: x\r\n\r\n", method, agent)+last, method)
			for _, b := range bodies {
				if strings.Contains(b, "evil") {
					t.Errorf("what lay behind an answer became one: %q", bodies)
				}
			}
			for _, r := range responses {
				if len(r.Header["X-Injected"]) > 0 {
					t.Errorf("a header was split: %v", r.Header)
				}
			}
			if tt.status == nil { // it is enough that it ends, and is no answer
				if i := slices.Index(statuses, 200); i >= 0 && bodies[i] != "last" {
					t.Errorf("the client saw %v", statuses)
				}
				return
			}
			want, ends := tt.status, len(tt.status) == 0 || tt.status[len(tt.status)-1] == -1
			if !ends {
				want = append(slices.Clone(want), 200)
			}
			if !slices.Equal(statuses, want) {
				t.Fatalf("the client saw %v, want %v", statuses, want)
			}
			if ends {
				return
			}
			if got := bodies[len(bodies)-1]; got != "last" {
				t.Errorf("the next request got %q", got)
			}
			if got := bodies[len(bodies)-2]; tt.body != got && tt.status[0] != 502 {
				t.Errorf("body %q, want %q", got, tt.body)
			}
			if n := a.asked.Load(); n != 2 {
				t.Errorf("the agent was asked %d times, want 2", n)
			}
		})
	}
}

// TestEarlyHintsCarryTheirHeaders: and the answer that follows does not.
func TestEarlyHintsCarryTheirHeaders(t *testing.T) {
	t.Parallel()
	a := &rawAgent{answer: "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nX-B: c\r\nContent-Length: 2\r\n\r\nok"}
	w := newStrict(t, a.serve(t))
	_, got, _ := w.converse("GET /agents/support-agent/a HTTP/1.1\r\nHost: x\r\nX-Request-ID: hinted\r\n\r\n" + last)
	if len(got) != 3 || got[0].Header.Get("Link") != "</a.css>" {
		t.Fatalf("answers %v", got)
	}
	if h := got[1].Header; h.Get("Link") != "" || h.Get("X-B") != "c" || h.Get("X-Request-ID") != "hinted" || h.Get("X-Agent-Version") != "v41" {
		t.Errorf("header %v", h)
	}
}

// TestTunnelNeedsWebSocket: an agent that opens a tunnel nobody asked for gets none, and one to WebSocket is one.
func TestTunnelNeedsWebSocket(t *testing.T) {
	t.Parallel()
	a := &rawAgent{answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + evil}
	for upgrade, status := range map[string]int{"h2c": 502, "websocket": 502} {
		w := newStrict(t, a.serve(t))
		c := w.dial()
		fmt.Fprintf(c, "GET /agents/%s/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", agent, upgrade)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != status {
			t.Errorf("%s answered by h2c: %v, %v, want %d", upgrade, resp, err, status)
		}
	}
}
