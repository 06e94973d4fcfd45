package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shapes are whole requests. {P} is the agent's prefix; the request that follows them is sent unless they end the connection.
var shapes = []struct {
	name, raw string
	status    []int
	agent     []string
	header    map[string]string // at the agent, of the first request; "-": must not be there
}{
	{"two at once", "GET {P}/a HTTP/1.1\r\nHost: x\r\n\r\nGET {P}/b HTTP/1.1\r\nHost: x\r\n\r\n", []int{200, 200, 200}, []string{"GET /a", "GET /b", "GET /last"}, nil},
	{"bare LF", "GET {P}/a HTTP/1.1\nHost: x\nX-A: b\n\n", both, asked("/a"), map[string]string{"X-A": "b"}},
	{"bare CR in a value", "GET {P}/a HTTP/1.1\r\nHost: x\r\nX-A: b\rX-B: c\r\n\r\n", refused, nil, nil},
	{"bare CR in the line", "GET {P}/a\rX HTTP/1.1\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"NUL in a value", "GET {P}/a HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\n\r\n", refused, nil, nil},
	{"NUL in a name", "GET {P}/a HTTP/1.1\r\nHost: x\r\nX-\x00A: b\r\n\r\n", refused, nil, nil},
	{"folded header", "GET {P}/a HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c: d\r\n\r\n", both, asked("/a"), map[string]string{"X-A": "b c: d"}},
	{"folded from the beginning", "GET {P}/a HTTP/1.1\r\n Host: x\r\nX-A: b\r\n\r\n", refused, nil, nil},
	{"no name", "GET {P}/a HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", refused, nil, nil},
	{"no colon", "GET {P}/a HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n", refused, nil, nil},
	{"space in a name", "GET {P}/a HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n", refused, nil, nil},
	{"no host", "GET {P}/a HTTP/1.1\r\n\r\n", refused, nil, nil},
	{"two hosts", "GET {P}/a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"list of hosts", "GET {P}/a HTTP/1.1\r\nHost: x, y\r\n\r\n", refused, nil, nil},
	{"host with a space", "GET {P}/a HTTP/1.1\r\nHost: x y\r\n\r\n", refused, nil, nil},
	{"host with a slash", "GET {P}/a HTTP/1.1\r\nHost: x/{P}\r\n\r\n", refused, nil, nil},
	{"absolute form", "GET http://other.example{P}/a HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/a"), map[string]string{"X-Forwarded-Host": "other.example"}},
	{"absolute form of another scheme", "GET ftp://other.example{P}/a HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/a"), nil},
	{"absolute form with a user", "GET http://u:p@other.example{P}/a HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/a"), map[string]string{"Authorization": "-"}},
	{"authority form", "GET other.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", []int{404, 200}, []string{"GET /last"}, nil},
	{"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", both, []string{"GET /last"}, nil},
	{"asterisk form of GET", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", []int{404, 200}, []string{"GET /last"}, nil},
	{"CONNECT", "CONNECT other.example:80 HTTP/1.1\r\nHost: other.example:80\r\n\r\n", []int{405}, nil, nil},
	{"CONNECT with a path", "CONNECT {P}/a HTTP/1.1\r\nHost: x\r\n\r\n", []int{405}, nil, nil},
	{"method with a bracket", "G(T {P}/a HTTP/1.1\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"two spaces in the line", "GET  {P}/a HTTP/1.1\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"space in the target", "GET {P}/a b HTTP/1.1\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"no version", "GET {P}/a\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"later version", "GET {P}/a HTTP/3.0\r\nHost: x\r\n\r\n", []int{505}, nil, nil},
	{"small letters", "GET {P}/a http/1.1\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"HTTP/1.0", "GET {P}/a HTTP/1.0\r\n\r\n", []int{200}, []string{"GET /a"}, nil},
	{"HTTP/1.0 kept alive", "GET {P}/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", []int{200}, []string{"GET /a"}, nil},
	{"HTTP/1.0, chunked", "POST {P}/a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", []int{200}, []string{"POST /a"}, nil},
	{"HTTP/1.0, chunked and length", "POST {P}/a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", []int{200}, []string{"POST /a abc"}, nil},
	{"expects something else", "POST {P}/a HTTP/1.1\r\nHost: x\r\nExpect: the-worst\r\nContent-Length: 3\r\n\r\nabc", []int{417}, nil, nil},
	{"body of GET", "GET {P}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", both, []string{"GET /a abc", "GET /last"}, nil},

	{"hops", "GET {P}/a HTTP/1.1\r\nHost: x\r\nConnection: X-Hop, close-not\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\n" +
		"TE: gzip\r\nX-Kept: 1\r\n\r\n", both, asked("/a"), map[string]string{"X-Hop": "-", "Keep-Alive": "-", "Proxy-Connection": "-",
		"Proxy-Authorization": "-", "Te": "-", "X-Kept": "1", "Connection": "-"}},
	{"TE: trailers", "GET {P}/a HTTP/1.1\r\nHost: x\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n", both, asked("/a"), map[string]string{"Te": "trailers"}},
	{"upgrade without connection", "GET {P}/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", both, asked("/a"), map[string]string{"Upgrade": "-"}},
	{"upgrade to h2c", "GET {P}/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		both, asked("/a"), map[string]string{"Upgrade": "-", "Connection": "-", "Http2-Settings": "-"}},
	{"upgrade to either", "GET {P}/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", both, asked("/a"), map[string]string{"Upgrade": "-"}},
	{"upgrade twice", "GET {P}/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n", both, asked("/a"), map[string]string{"Upgrade": "-"}},

	{"dots", "GET {P}/../other/a HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 200}, []string{"GET /last"}, nil},
	{"escaped dots", "GET {P}/%2e%2E/a HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 200}, []string{"GET /last"}, nil},
	{"dots and an escaped slash", "GET {P}/..%2fa HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 200}, []string{"GET /last"}, nil},
	{"dots and a semicolon", "GET {P}/..;x=1/a HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 200}, []string{"GET /last"}, nil},
	{"one dot", "GET {P}/./a HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 200}, []string{"GET /last"}, nil},
	{"dots in a name", "GET {P}/..a/b.. HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/..a/b.."), nil},
	{"dots in the query", "GET {P}/a?../.. HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/a?../.."), nil},
	{"escaped twice", "GET {P}/%252e%252e/a HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/%252e%252e/a"), nil},
	{"escaped slash", "GET {P}/a%2fb HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/a%2fb"), nil},
	{"two slashes", "GET {P}//a HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("//a"), nil},
	{"two slashes in front", "GET /{P}/a HTTP/1.1\r\nHost: x\r\n\r\n", []int{404, 200}, []string{"GET /last"}, nil},
	{"escaped slash for the prefix's", "GET {P}%2fa HTTP/1.1\r\nHost: x\r\n\r\n", []int{404, 200}, []string{"GET /last"}, nil},
	{"bad escape", "GET {P}/%zz HTTP/1.1\r\nHost: x\r\n\r\n", refused, nil, nil},
	{"escaped line break", "GET {P}/a%0d%0aX-B:%20c HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/a%0d%0aX-B:%20c"), map[string]string{"X-B": "-"}},
	{"long target", "GET {P}/" + strings.Repeat("a", 30_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", both, asked("/" + strings.Repeat("a", 30_000)), nil},
	{"too long a target", "GET {P}/" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", []int{431}, nil, nil},
	{"too large a header", "GET {P}/a HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 100_000) + "\r\n\r\n", []int{431}, nil, nil},
	{"too many headers", "GET {P}/a HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: 0123456789\r\n", 10_000) + "\r\n", []int{431}, nil, nil},
}

func asked(target string) []string { return []string{"GET " + target, "GET /last"} }

func TestRequestShapes(t *testing.T) {
	t.Parallel()
	for _, tt := range shapes {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var agents recorder
			w := newStrict(t, serve(t, agents.ServeHTTP))
			statuses, _, _ := w.converse(strings.ReplaceAll(tt.raw, "{P}", "/agents/"+agent) + last)
			if !slices.Equal(statuses, tt.status) {
				t.Errorf("the client saw %v, want %v", statuses, tt.status)
			}
			if diff := cmp.Diff(tt.agent, agents.settled(w)); diff != "" {
				t.Errorf("at the agent (-want +got):\n%s", diff)
			}
			_, headers, _ := agents.asked()
			for name, want := range tt.header {
				if got := strings.Join(headers[0][name], "|"); got != strings.TrimPrefix(want, "-") {
					t.Errorf("the agent got %s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestBrokenBodies: a body that ends early makes no whole request, however the client ends it.
func TestBrokenBodies(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"length": "Content-Length: 10\r\n\r\nabc", "chunk": "Transfer-Encoding: chunked\r\n\r\na\r\nabc", "after a chunk": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"after the last chunk": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "in a trailer": "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var agents recorder
			w := newStrict(t, serve(t, agents.ServeHTTP))
			c := w.dial()
			fmt.Fprintf(c, "POST /agents/%s/a HTTP/1.1\r\nHost: x\r\n%s", agent, raw)
			eventually(t, "the request arrives", func() bool { return w.proxy.Live() == 1 })
			c.Close()
			for _, got := range agents.settled(w) {
				if !strings.HasSuffix(got, " !") {
					t.Errorf("the agent took %q for whole", got)
				}
			}
			if n := w.counter("v41").Errors; n != 0 {
				t.Errorf("%d errors counted against the agent", n)
			}
		})
	}
}

// TestRequestTrailers: those that are announced pass, and none by the name of a header that is the proxy's.
func TestRequestTrailers(t *testing.T) {
	t.Parallel()
	var agents recorder
	w := newStrict(t, serve(t, agents.ServeHTTP))
	statuses, _, _ := w.converse("POST /agents/support-agent/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-T, X-Forwarded-For, X-Canary, X-Never\r\n\r\n" +
		"3\r\nabc\r\n0\r\nX-T: 1\r\nX-T: 2\r\nX-Forwarded-For: 6.6.6.6\r\nX-Canary: true\r\nX-Sudden: 1\r\n\r\n" + last)
	if !slices.Equal(statuses, both) {
		t.Errorf("the client saw %v", statuses)
	}
	got := agents.settled(w)
	_, _, trailers := agents.asked()
	want := http.Header{"X-T": {"1", "2"}, "X-Never": nil}
	if diff := cmp.Diff(want, trailers[0]); diff != "" || !slices.Equal(got, posted("abc")) {
		t.Errorf("at the agent %q, trailers (-want +got):\n%s", got, diff)
	}
	statuses, _, _ = w.converse("POST /agents/support-agent/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 5\r\n\r\n" + last)
	if !slices.Equal(statuses, refused) {
		t.Errorf("a length in the trailer: the client saw %v", statuses)
	}
}

// TestEarlyAnswerEndsTheConnection: an agent that answers before it has been told all leaves no connection behind on which the
// rest could pass for a request.
func TestEarlyAnswerEndsTheConnection(t *testing.T) {
	t.Parallel()
	var agents recorder
	w := newStrict(t, serve(t, func(rw http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/a" {
			agents.ServeHTTP(rw, req)
			return
		}
		_ = http.NewResponseController(rw).EnableFullDuplex() // else net/http reads on first
		rw.WriteHeader(http.StatusForbidden)
		io.WriteString(rw, "no")
		rw.(http.Flusher).Flush()
	}))
	c := w.dial()
	fmt.Fprintf(c, "POST /agents/%s/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", agent)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusForbidden || !resp.Close {
		t.Fatalf("answer %v, %v: want 403 and the connection closed", resp, err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "no" || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
	io.WriteString(c, "not a chunk\r\n"+last)
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("after the answer: %q", rest)
	}
	if got := agents.settled(w); len(got) > 0 {
		t.Errorf("the agent was asked %q", got)
	}
}
