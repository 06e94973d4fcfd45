package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// exchange is one request on its way. All but the atomics belongs to the handler's goroutine.
type exchange struct {
	proxy       *Proxy
	in          *http.Request
	start       time.Time
	prefix      string // of the path, that led here
	agent       string // the request is for; empty: for none that is known
	decision    router.Decision
	asked       router.Request // what the decision was made of
	disbelieved string         // why a tester's wish was not followed; empty: it was, or there was none
	newKey      string         // for the key cookie; empty: it has one or needs none

	client      client
	id          string       // of the request
	traceparent string       // empty: none
	traced      bool         // traceparent is the client's
	received    atomic.Int64 // bytes of the request's body

	way      agentWay
	small    []byte             // its whole body; nil: it is read as it goes
	copy     *capture           // nil: it is not copied
	instance *upstream.Instance // that is asked; nil: none yet
	cancel   context.CancelFunc // of the request to the agent

	killed  atomic.Bool // by a rollback
	starved atomic.Bool // the agent sent nothing for too long
	broken  atomic.Bool // the request's body could not be read

	code     int           // of the response; 0: none yet
	header   time.Duration // from start to the response's header
	first    time.Duration // from start to the body's first byte; 0: none yet
	upgraded bool
	events   bool // the response is an event stream
	done     bool

	outcome int    // the code it was counted with
	refusal string // of the proxy
	problem error  // of the agent
}

// begin opens the exchange towards the client.
func (x *exchange) begin(w http.ResponseWriter) {
	p := x.proxy
	x.client.open(w, x.in, p.options.ClientRead, p.options.ClientWrite)
	x.id = requestID(x.in.Header[p.names.RequestID])
	p.trace(x)
}

// close is the last that happens to an exchange.
func (x *exchange) close() {
	bodyLeft := x.in.ContentLength != 0
	if b := x.client.body; b != nil {
		bodyLeft = !b.over.Load()
	}
	x.client.close(bodyLeft)
	x.proxy.logAccess(x)
}

// counted reports whether the request shows in the metrics. Testers' do not.
func (x *exchange) counted() bool { return x.decision.Reason != router.ByOverride }

// finish counts the exchange, if nobody has. It runs before the client can have seen the end of the response.
func (x *exchange) finish(code int, failed bool) {
	if x.done {
		return
	}
	x.done = true
	x.outcome = code
	if !x.counted() {
		return
	}
	o := router.Outcome{Code: code, Failed: failed, Latency: time.Since(x.start), TTFB: x.first}
	if x.upgraded {
		o.Latency = x.header // what follows is a connection, not a response
	}
	if o.TTFB == 0 {
		o.TTFB = x.header
	}
	if o.TTFB == 0 {
		o.TTFB = o.Latency
	}
	x.decision.Stats().Request(o)
}

// fail counts the exchange as ended with code because of err, and logs it if the agent is to blame.
func (x *exchange) fail(code int, err error) {
	blame := code >= 500 && !x.killed.Load()
	if !x.done && code != CodeClientGone {
		x.problem = err
	}
	if blame && !x.done {
		x.proxy.log.Warn("agent did not answer", "agent", x.decision.Agent, "version", x.decision.Version,
			"reason", string(x.decision.Reason), "code", code, "error", err)
	}
	x.finish(code, blame)
}

// smallBody is the size up to which a body of known length is read before the agent is asked, in bytes.
const smallBody = 4 << 10

// takeBody makes the client's body the one of req. A small one is read at once, so that it leaves in one packet with the header:
// the transport sends the header of any other body first. It waits for the client no longer than any body may stand still.
func (x *exchange) takeBody(req *http.Request) error {
	body := x.client.body
	if req.ContentLength <= 0 || req.ContentLength > smallBody || req.Header["Expect"] != nil {
		// An agent may answer while it is still being told: without this, the server would first read all of the request.
		// Not every ResponseWriter can; those of HTTP/2 always do it.
		_ = x.client.control.EnableFullDuplex()
		req.Body = body
		return nil
	}
	small := make([]byte, req.ContentLength)
	if _, err := io.ReadFull(body, small); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if !body.over.Load() {
		if n, err := body.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			x.broken.Store(true)
			return fmt.Errorf("read the request's end: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
	req.Body, x.small = io.NopCloser(bytes.NewReader(small)), small
	return nil
}

// ask notes which instance is asked.
func (x *exchange) ask(i *upstream.Instance) {
	if x.instance != nil {
		x.instance.End()
	}
	x.instance = i
	i.Begin()
}

// end counts an exchange that nobody has counted: an upgraded connection that is over, or a client that took no more.
func (x *exchange) end() {
	if x.copy != nil {
		x.copy.drop(x, router.MirrorBroken) // unless it is sent
	}
	if x.instance != nil {
		x.instance.End()
	}
	switch {
	case x.upgraded:
		x.finish(x.code, false)
	case x.killed.Load():
		x.finish(router.CodeClientGone, false) // Aviary ended it: no error of the agent
	default:
		x.finish(router.CodeClientGone, false)
	}
}

// takeFeedback counts the feedback in h for the version that served, and takes it out unless clients may see it.
func (x *exchange) takeFeedback(h http.Header) {
	if f, ok := router.HeaderFeedback(h); ok && x.counted() {
		x.decision.Stats().Feedback(f)
	}
	if !x.proxy.options.KeepFeedback {
		for _, name := range router.FeedbackHeaders() {
			delete(h, name)
		}
	}
}

// responseBody watches the response go by: its first byte, its end, and what a rollback does to it.
type responseBody struct {
	io.ReadCloser
	exchange *exchange
	resp     *http.Response
	midLine  bool // the last byte that went by was not a newline
	ended    bool // by a rollback: farewell is what is left to say
	farewell []byte
	idle     *time.Timer // breaks off a body that stands still; nil: nothing does
}

// Read passes the body on. At its end the exchange is counted, before the client has seen the end.
func (b *responseBody) Read(p []byte) (int, error) {
	x := b.exchange
	if b.ended {
		return b.leave(p)
	}
	if b.idle != nil {
		b.idle.Reset(x.way.idle)
	}
	n, err := b.ReadCloser.Read(p)
	if b.idle != nil {
		b.idle.Stop() // a client that takes its time is not the agent's silence
	}
	if n > 0 {
		if x.first == 0 {
			x.first = time.Since(x.start)
		}
		b.midLine = p[n-1] != '\n'
	}
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		x.takeFeedback(b.resp.Trailer)
		x.finish(x.code, x.code >= 500)
		return n, err
	case x.killed.Load():
		x.finish(router.CodeClientGone, false) // Aviary ended it: no error of the agent
		return b.breakOff(n, err, withdrawnEvent)
	case x.starved.Load():
		x.fail(http.StatusGatewayTimeout, errIdle)
		return b.breakOff(n, errIdle, silentEvent)
	case x.in.Context().Err() != nil:
		x.finish(router.CodeClientGone, false)
	default:
		x.fail(http.StatusBadGateway, err)
	}
	return n, err
}

// errIdle is the end of a response of which nothing came for too long.
var errIdle = errors.New("the agent sent nothing for too long")

// breakOff ends a response that the agent did not end: an event stream by an event that says why, any other so that no client can
// take it for complete.
func (b *responseBody) breakOff(n int, err error, event string) (int, error) {
	if !b.exchange.events {
		return n, err
	}
	b.ended = true
	b.farewell = farewell(event, b.midLine)
	return n, nil
}

// Close ends the watch over a body.
func (b *responseBody) Close() error {
	if b.idle != nil {
		b.idle.Stop()
	}
	return b.ReadCloser.Close()
}

// leave hands out what is left of the farewell.
func (b *responseBody) leave(p []byte) (int, error) {
	n := copy(p, b.farewell)
	b.farewell = b.farewell[n:]
	if len(b.farewell) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// What a client is told by the last event of a stream that is broken off.
const (
	withdrawnEvent = `{"code":"version_withdrawn","error":"the version that served this conversation was withdrawn"}`
	silentEvent    = `{"code":"gateway_timeout","error":"the agent sent nothing for too long"}`
)

// farewell is the last event of a stream that is broken off. An event that was cut short is not ended first: it becomes part
// of this one, whose type is error, so that no client takes half a message for a whole one.
func farewell(event string, midLine bool) []byte {
	text := "event: error\ndata: " + event + "\n\n"
	if midLine {
		text = "\n" + text
	}
	return []byte(text)
}

// isEventStream reports whether an event can be written into the response: server-sent events, not compressed, of open length.
func isEventStream(h http.Header) bool {
	if t := h["Content-Type"]; len(t) == 0 || !strings.Contains(strings.ToLower(t[0]), "event-stream") {
		return false // most answers, and parsing costs
	}
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && media == "text/event-stream" && h.Get("Content-Encoding") == "" && h.Get("Content-Length") == ""
}
