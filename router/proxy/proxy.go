// Package proxy is the data plane: a reverse proxy that sends every request to the version a router.Router decides on.
package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// Options of a Proxy. The zero value serves every agent under /agents/NAME/ with the default names.
type Options struct {
	// Agents say by which host or path an agent is reached; an agent that is not named is reached under /agents/NAME/.
	Agents map[string]Match
	Names  Names // of headers and cookies; zero fields are the defaults
	// TrustedNetworks may override the choice without a token. TrustedProxies are believed about X-Forwarded-For.
	TrustedNetworks, TrustedProxies []netip.Prefix
	KeepFeedback                    bool                // pass the agents' feedback headers on to clients
	DialTimeout                     time.Duration       // to an agent; 0: 5 s
	Timeouts                        map[string]Timeouts // of agents that have their own
	HeaderTimeout                   time.Duration       // from the request's end to the header of the response; 0: 2 min
	IdlePerHost                     int                 // idle connections kept per version; 0: 256
	Logger                          *slog.Logger        // nil: none

	// ClientRead bounds how long a client may send nothing of a body that it announced, ClientWrite how long it may take nothing
	// of the response; 0: for ever. Neither bounds how long an agent may think.
	ClientRead, ClientWrite time.Duration
	NoTrace                 bool         // leave a request without a traceparent without one
	AccessLog               *slog.Logger // one line per request at its end; nil: none
	AccessSample            float64      // the share in [0,1] of the requests that went well, that AccessLog gets; it gets every other
}

// Match is how an agent is reached.
type Match struct {
	Host string // exact, without port; empty: any
	Path string // prefix that begins and ends with /, and is stripped; empty: /agents/NAME/, or / with a Host
}

// Proxy is an http.Handler. New makes one.
type Proxy struct {
	router   *router.Router
	options  Options
	names    Names
	reserved reserved
	matches  atomic.Pointer[matcher]
	ways     atomic.Pointer[ways]
	reverse  *httputil.ReverseProxy
	log      *slog.Logger
	live     atomic.Int64

	copies chan struct{}   // one for each under way
	base   context.Context // of copies
	cut    context.CancelFunc
}

// New is a proxy for the agents of r. Errors name the match at fault.
func New(r *router.Router, o Options) (*Proxy, error) {
	matches, err := newMatcher(o.Agents)
	if err != nil {
		return nil, err
	}
	p := &Proxy{router: r, options: o, names: o.Names.withDefaults(), log: o.Logger, copies: make(chan struct{}, maxCopies)}
	p.base, p.cut = context.WithCancel(context.Background())
	n := p.names
	p.reserved = newReserved(n.Override, n.OverrideToken, n.Pin, n.MigratedFrom, n.Version, n.RequestID, headerMirror)
	p.matches.Store(&matches)
	p.ways.Store(newWays(o, o.Timeouts, nil))
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		ModifyResponse: p.modifyResponse,
		ErrorHandler:   p.answerError,
		Transport:      sender{p},
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // every fault is told by answerError or fail, with its decision
		// FlushInterval stays 0: ReverseProxy flushes at once what has no known length or is an event stream, and an answer
		// of known length leaves in as few packets as can be.
	}
	return p, nil
}

// Prepare checks how agents are reached now and what their timeouts are, and returns what makes it so. Requests under way keep
// theirs. Errors name the match at fault.
func (p *Proxy) Prepare(agents map[string]Match, timeouts map[string]Timeouts) (apply func(), err error) {
	matches, err := newMatcher(agents)
	if err != nil {
		return nil, err
	}
	return func() {
		p.matches.Store(&matches)
		now := newWays(p.options, timeouts, p.ways.Load())
		p.ways.Swap(now).close(now)
	}, nil
}

// Close ends copies under way and drops the idle connections to agents.
func (p *Proxy) Close() {
	p.cut()
	p.ways.Load().close(nil)
}

// Live is how many requests are under way, upgraded connections included.
func (p *Proxy) Live() int { return int(p.live.Load()) }

// Wait waits until no request is under way, or ctx ends, whose error it then returns.
func (p *Proxy) Wait(ctx context.Context) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for p.Live() > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// ServeHTTP sends req to the version that serves it, and counts how it ended.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	x := &exchange{proxy: p, in: req, start: time.Now()}
	x.begin(w)
	defer x.close()
	if req.Method == http.MethodConnect {
		w.Header()["Connection"] = []string{"close"} // what follows was meant for somebody else
		x.refuse(http.StatusMethodNotAllowed, api.CodeInvalid, "CONNECT is not served")
		return
	}
	agent, prefix, ok := p.matches.Load().match(req, p.router)
	if !ok {
		x.refuse(http.StatusNotFound, api.CodeUnknownAgent, "no agent is reached by this host and path")
		return
	}
	if dotted(req.URL.Path) {
		x.refuse(http.StatusBadRequest, api.CodeInvalid, "path has a . or .. segment")
		return
	}
	x.agent, x.prefix = agent, prefix
	q, refusal := p.identify(x, agent)
	if refusal != "" {
		x.refuse(http.StatusForbidden, api.CodeInvalid, refusal)
		return
	}
	d, err := p.router.Decide(agent, q)
	switch {
	case errors.Is(err, router.ErrUnknownVersion):
		x.refuse(http.StatusUnprocessableEntity, api.CodeUnknownVersion, fmt.Sprintf("agent %s has no version %q", agent, q.Override))
		return
	case err != nil:
		x.refuse(http.StatusServiceUnavailable, api.CodeNotReady, fmt.Sprintf("agent %s: %v", agent, err))
		return
	}
	x.decision, x.asked = d, q
	p.forward(req, x)
}

// forward runs the exchange to its end. However it ends, it is counted once.
func (p *Proxy) forward(req *http.Request, x *exchange) {
	copied := x.decision.Reason == router.ByMirror
	if !copied {
		p.live.Add(1)
		defer p.live.Add(-1)
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	if x.counted() {
		if !copied {
			p.router.Served(&x.decision, x.asked.Key)
			x.copy = p.capture(x)
		}
	}
	x.cancel, x.way = cancel, p.ways.Load().of(x.agent)
	unwatch := x.watch()
	defer func() { unwatch() }()
	defer x.end()          // also when ReverseProxy panics to cut the connection
	var slot *upstream.Set // that is held; nil: none
	defer func() {
		if slot != nil {
			slot.Release()
		}
	}()
	acquire := func() bool {
		set := x.decision.Upstreams()
		if err := set.Acquire(ctx); err != nil {
			p.turnedAway(x, err)
			return false
		}
		slot = set
		return true
	}
	if !acquire() {
		return
	}
	req = req.WithContext(context.WithValue(ctx, exchangeKey{}, x))
	if req.Body != nil && req.Body != http.NoBody {
		x.client.body = &requestBody{ReadCloser: req.Body, exchange: x}
		if err := x.takeBody(req); err != nil {
			p.answerError(&x.client, req, err)
			return
		}
	} else if x.copy != nil {
		x.copy.send(x)
	}
	// The canary may have been taken back while the request waited in a queue, or for its body.
	if !p.router.Stands(&x.decision) {
		d, err := p.router.Decide(x.agent, x.asked)
		if err != nil {
			x.refuse(http.StatusServiceUnavailable, api.CodeNotReady, fmt.Sprintf("agent %s: %v", x.agent, err))
			return
		}
		unwatch()
		slot.Release()
		slot = nil
		x.decision = d
		unwatch = x.watch()
		if !acquire() {
			return
		}
	}
	p.reverse.ServeHTTP(&x.client, req)
}

// watch lets a rollback end the exchange, until the function that it returns is called.
func (x *exchange) watch() (unwatch func()) {
	if !x.counted() {
		return func() {}
	}
	return x.decision.Streams().Add(func() {
		x.killed.Store(true)
		x.cancel()
	})
}

type exchangeKey struct{}

func exchangeOf(req *http.Request) *exchange { return req.Context().Value(exchangeKey{}).(*exchange) }

// rewrite aims the request at the version, and takes out what only the router may say.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In)
	pr.Out.URL.Path = strip(pr.Out.URL.Path, x.prefix)
	pr.Out.URL.RawPath = strip(pr.Out.URL.RawPath, x.prefix)
	// As it came: ReverseProxy drops what it can't parse, and the agent may have its own idea of a query.
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	p.forwardHeaders(pr)
	h := pr.Out.Header
	p.reserved.drop(h)
	p.reserved.drop(pr.Out.Trailer)
	p.markRequest(h, x)
	p.plainly(pr, x)
	for _, name := range []string{p.names.Override, p.names.OverrideToken, p.names.Pin, p.names.MigratedFrom, p.names.Version, headerMirror} {
		delete(h, name)
	}
	if x.decision.Reason == router.ByMirror {
		h[headerMirror] = []string{"1"}
	}
	if x.decision.MigratedFrom != "" {
		h[p.names.MigratedFrom] = []string{x.decision.MigratedFrom}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // else the transport would name itself
	}
}

// modifyResponse tells the client which version answered, and begins to watch the body.
func (p *Proxy) modifyResponse(resp *http.Response) error {
	x := exchangeOf(resp.Request)
	x.code = resp.StatusCode
	x.header = time.Since(x.start)
	p.label(resp.Header, x)
	p.router.Reported(&x.decision, resp.Header)
	x.takeFeedback(resp.Header)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		x.upgraded = true
		if conn, ok := resp.Body.(io.ReadWriteCloser); ok {
			resp.Body = &tunnel{ReadWriteCloser: conn, exchange: x}
		}
		return nil
	}
	x.events = isEventStream(resp.Header)
	if !p.options.KeepFeedback {
		for _, name := range router.FeedbackHeaders() {
			delete(resp.Trailer, name) // the announcement; the values come at the body's end
		}
	}
	if resp.Body == http.NoBody || resp.Request.Method == http.MethodHead {
		x.finish(x.code, x.code >= 500) // its header is all the client waits for
	}
	body := &responseBody{ReadCloser: resp.Body, exchange: x, resp: resp}
	if x.way.idle > 0 {
		body.idle = time.AfterFunc(x.way.idle, func() {
			x.starved.Store(true)
			x.cancel()
		})
	}
	resp.Body = body
	return nil
}

// label sets the router's own headers on an answer.
func (p *Proxy) label(h http.Header, x *exchange) {
	d := &x.decision
	h[p.names.RequestID] = []string{x.id}
	h[p.names.Version] = []string{d.Version}
	delete(h, p.names.Pin)
	delete(h, p.names.MigratedFrom)
	if d.MigratedFrom != "" {
		h[p.names.MigratedFrom] = []string{d.MigratedFrom}
	}
	if d.NewPin {
		token := string(p.router.AppendPin(nil, d))
		h[p.names.Pin] = []string{token}
		p.setCookie(h, p.names.PinCookie, token, x)
	}
	if x.newKey != "" {
		p.setCookie(h, p.names.KeyCookie, x.newKey, x)
	}
}

// answerError answers for an agent that could not, and classifies why.
func (p *Proxy) answerError(w http.ResponseWriter, req *http.Request, err error) {
	x := exchangeOf(req)
	status, code, message := http.StatusBadGateway, "bad_gateway", "the agent could not be reached or broke off"
	var timeout net.Error
	switch {
	case x.killed.Load():
		status, code, message = http.StatusServiceUnavailable, "version_withdrawn", "the version that served this conversation was withdrawn; send the turn again"
	case x.client.reading.out.Load():
		status, code, message = http.StatusRequestTimeout, "request_timeout", "the request's body did not come in time"
	case x.broken.Load():
		status, code, message = http.StatusBadRequest, api.CodeInvalid, "the request's body could not be read"
	case x.in.Context().Err() != nil:
		status, code, message = CodeClientGone, "client_gone", "the client went away"
	case errors.Is(err, errUnreachable):
		status, code, message = http.StatusServiceUnavailable, "version_unreachable", "the version that serves this conversation can't be reached"
		w.Header().Set("Retry-After", seconds(x.decision.Upstreams().RetryAfter()))
	case errors.As(err, &timeout) && timeout.Timeout():
		status, code, message = http.StatusGatewayTimeout, "gateway_timeout", "the agent did not answer in time"
	}
	counted := status
	if x.killed.Load() {
		counted = router.CodeClientGone // Aviary ended it, so it must not look like the agent's error
	}
	x.fail(counted, err)
	p.label(w.Header(), x)
	if x.killed.Load() {
		w.Header().Set("Retry-After", "0")
	}
	writeError(w, status, code, message, x.id)
}

// refuse answers for an agent that is not asked.
func (x *exchange) refuse(status int, code, message string) {
	x.refusal = message
	x.client.Header()[x.proxy.names.RequestID] = []string{x.id}
	writeError(&x.client, status, code, message, x.id)
}

// turnedAway answers for a version that has too many requests under way. It counts as the version's failure: one that is too
// slow for its traffic is worse for users, whatever its answers are worth.
func (p *Proxy) turnedAway(x *exchange, err error) {
	w := &x.client
	if x.in.Context().Err() != nil {
		x.fail(CodeClientGone, err)
		writeError(w, CodeClientGone, "client_gone", "the client went away", x.id)
		return
	}
	status, code, message := http.StatusServiceUnavailable, "version_busy", "the version that serves this conversation has too many requests under way"
	counted := status
	if x.killed.Load() {
		counted, code, message = router.CodeClientGone, "version_withdrawn", "the version that served this conversation was withdrawn; send the turn again"
	}
	x.fail(counted, err)
	p.label(w.Header(), x)
	w.Header().Set("Retry-After", "1")
	writeError(w, status, code, message, x.id)
}

// seconds is a duration as Retry-After takes it, rounded up.
func seconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

// CodeClientGone is the status in logs and metrics of a request whose client went away.
const CodeClientGone = router.CodeClientGone

// errorBody is the body of an answer of the proxy's own.
type errorBody struct {
	api.ErrorBody
	RequestID string `json:"request_id"`
}

func writeError(w http.ResponseWriter, status int, code, message, id string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(errorBody{api.ErrorBody{Code: code, Error: message}, id}) //nolint:errcheck // the client is gone
}

// copyBuffer is the size of a part of a response. Thousands of streams hold one each for as long as they live, and a token is small.
const copyBuffer = 4 << 10

// buffers lends ReverseProxy its copy buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, copyBuffer)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
