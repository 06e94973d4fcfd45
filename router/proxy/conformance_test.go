package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorder is an agent that notes what it was asked.
type recorder struct {
	mu   sync.Mutex
	got  []string // "METHOD target body", with " !" at its end if the body was not whole
	head []http.Header
	tail []http.Header
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	text := strings.TrimSpace(fmt.Sprintf("%s %s %s", req.Method, req.RequestURI, body))
	if err != nil {
		text += " !"
	}
	r.mu.Lock()
	r.got, r.head, r.tail = append(r.got, text), append(r.head, req.Header), append(r.tail, req.Trailer)
	r.mu.Unlock()
	io.WriteString(w, "ok")
}

func (r *recorder) asked() ([]string, []http.Header, []http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got), slices.Clone(r.head), slices.Clone(r.tail)
}

// newStrict is a world whose proxy is served with the header limit of the gateway.
func newStrict(t *testing.T, stableURL string) *world {
	t.Helper()
	w := newWorldAt(t, stableURL, stableURL, func(o *Options) { o.ClientRead = 5 * short })
	s := httptest.NewUnstartedServer(w.proxy)
	s.Config.MaxHeaderBytes = 64 << 10
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	w.front = s
	return w
}

// last is a request that follows every case's on its connection. Whoever takes a part of the case's for another request, or this
// one for a part of the case's, is found out.
const last = "GET /agents/support-agent/last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// converse sends raw and reads all answers there are. Unless they end as they should, the last of the statuses is -1.
func (w *world) converse(raw string, methods ...string) (statuses []int, answers []*http.Response, bodies []string) {
	w.t.Helper()
	c := w.dial()
	go io.WriteString(c, raw) // an answer may come, and the connection end, before all is sent
	r := bufio.NewReader(c)
	for i := 0; ; i++ {
		if _, err := r.Peek(1); err != nil {
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				w.t.Errorf("read: %v", err)
			}
			return statuses, answers, bodies
		}
		req := &http.Request{Method: http.MethodGet}
		if i < len(methods) {
			req.Method = methods[i]
		}
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return append(statuses, -1), answers, bodies
		}
		body, err := io.ReadAll(resp.Body)
		statuses, answers, bodies = append(statuses, resp.StatusCode), append(answers, resp), append(bodies, string(body))
		if err != nil {
			return append(statuses, -1), answers, bodies
		}
		if resp.StatusCode < 200 {
			i--
		}
	}
}

// framing are requests whose ends may be seen in several places.
var framing = []struct {
	name, head, body string   // of a POST to /a
	status           []int    // that the client sees; 200 twice: the case's, and that of the request after it
	agent            []string // what the agent is asked
}{
	{"length", "Content-Length: 3", "abc", both, posted("abc")},
	{"length 0", "Content-Length: 0", "", both, posted("")},
	{"no length", "X-A: b", "", both, posted("")},
	{"length twice, the same", "Content-Length: 3\r\nContent-Length: 3", "abc", both, posted("abc")},
	{"length twice, not the same", "Content-Length: 3\r\nContent-Length: 4", "abc", refused, nil},
	{"list of lengths", "Content-Length: 3, 3", "abc", refused, nil},
	{"negative length", "Content-Length: -3", "abc", refused, nil},
	{"length with a sign", "Content-Length: +3", "abc", refused, nil},
	{"hexadecimal length", "Content-Length: 0x3", "abc", refused, nil},
	{"length beyond 64 bits", "Content-Length: 18446744073709551619", "abc", refused, nil},
	{"empty length", "Content-Length:", "", refused, nil},
	{"length with inner space", "Content-Length: 3 3", "abc", refused, nil},
	{"space before the colon of a length", "Content-Length : 3", "abc", refused, nil},
	{"folded length", "Content-Length:\r\n 3", "abc", both, posted("abc")},
	{"chunked", "Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", both, posted("abc")},
	{"chunked by another case", "Transfer-Encoding: cHUNKED", "3\r\nabc\r\n0\r\n\r\n", both, posted("abc")},
	{"length and chunked", "Content-Length: 4\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", both, posted("abc")},
	{"chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 99", "3\r\nabc\r\n0\r\n\r\n", both, posted("abc")},
	{"chunked and identity", "Transfer-Encoding: chunked, identity", "3\r\nabc\r\n0\r\n\r\n", unknown, nil},
	{"identity and chunked", "Transfer-Encoding: identity, chunked", "3\r\nabc\r\n0\r\n\r\n", unknown, nil},
	{"identity alone", "Transfer-Encoding: identity\r\nContent-Length: 3", "abc", unknown, nil},
	{"chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", unknown, nil},
	{"chunked and identity by two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "3\r\nabc\r\n0\r\n\r\n", unknown, nil},
	{"no coding", "Transfer-Encoding:", "", unknown, nil},
	{"coding with a control", "Transfer-Encoding: \x0bchunked", "3\r\nabc\r\n0\r\n\r\n", refused, nil},
	{"coding with quotes", "Transfer-Encoding: \"chunked\"", "3\r\nabc\r\n0\r\n\r\n", unknown, nil},
	{"coding that only begins so", "Transfer-Encoding: chunkedx", "3\r\nabc\r\n0\r\n\r\n", unknown, nil},
	{"space before the colon of a coding", "Transfer-Encoding : chunked", "3\r\nabc\r\n0\r\n\r\n", refused, nil},
	{"folded coding", "Transfer-Encoding:\r\n chunked", "3\r\nabc\r\n0\r\n\r\n", both, posted("abc")},
	{"coding by underscore", "Transfer_Encoding: chunked\r\nContent-Length: 3", "abc", both, posted("abc")},
	{"hop that takes the length away", "Connection: Content-Length, Transfer-Encoding\r\nContent-Length: 3", "abc", both, posted("abc")},

	{"chunk extension", "Transfer-Encoding: chunked", "3;a=\"b\"\r\nabc\r\n0;c\r\n\r\n", both, posted("abc")},
	{"many chunk extensions", "Transfer-Encoding: chunked", strings.Repeat("1;a="+strings.Repeat("b", 4000)+"\r\nx\r\n", 20) + "0\r\n\r\n", refused, nil},
	{"chunk extension with a bare LF", "Transfer-Encoding: chunked", "3;a\nabc\r\n0\r\n\r\n", refused, nil},
	{"chunk size with a bare CR", "Transfer-Encoding: chunked", "3\rabc\r\n0\r\n\r\n", refused, nil},
	{"negative chunk", "Transfer-Encoding: chunked", "-3\r\nabc\r\n0\r\n\r\n", refused, nil},
	{"chunk with a sign", "Transfer-Encoding: chunked", "+3\r\nabc\r\n0\r\n\r\n", refused, nil},
	{"chunk with 0x", "Transfer-Encoding: chunked", "0x3\r\nabc\r\n0\r\n\r\n", refused, nil},
	{"chunk beyond 64 bits", "Transfer-Encoding: chunked", "10000000000000003\r\nabc\r\n0\r\n\r\n", refused, nil},
	{"chunk of 63 bits and more", "Transfer-Encoding: chunked", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", nil, nil},
	{"no chunk size", "Transfer-Encoding: chunked", "\r\nabc\r\n0\r\n\r\n", refused, nil},
	{"chunk longer than it says", "Transfer-Encoding: chunked", "3\r\nabcd\r\n0\r\n\r\n", refused, nil},
	{"chunk that ends by a bare LF", "Transfer-Encoding: chunked", "3\r\nabc\n0\r\n\r\n", refused, nil},
}

var both, refused, unknown = []int{200, 200}, []int{400}, []int{501}

func posted(body string) []string {
	return []string{strings.TrimSpace("POST /a " + body), "GET /last"}
}

func TestRequestFraming(t *testing.T) {
	t.Parallel()
	for _, tt := range framing {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var agents recorder
			w := newStrict(t, serve(t, agents.ServeHTTP))
			statuses, _, _ := w.converse("POST /agents/support-agent/a HTTP/1.1\r\nHost: x\r\n" + tt.head + "\r\n\r\n" + tt.body + last)
			if tt.status != nil && !slices.Equal(statuses, tt.status) {
				t.Errorf("the client saw %v, want %v", statuses, tt.status)
			}
			got := agents.settled(w)
			if tt.agent == nil {
				// The head may have gone on before the body broke. Then the agent must know that it is not whole.
				got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "POST /a") && strings.HasSuffix(s, " !") })
			}
			if diff := cmp.Diff(tt.agent, got); diff != "" && len(tt.agent)+len(got) > 0 {
				t.Errorf("at the agent (-want +got):\n%s", diff)
			}
		})
	}
}

// settled is what the agent was asked, once the proxy is through.
func (r *recorder) settled(w *world) []string {
	w.t.Helper()
	if err := w.proxy.Wait(limited(w.t)); err != nil {
		w.t.Fatal(err)
	}
	got, _, _ := r.asked()
	return got
}
