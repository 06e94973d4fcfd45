package proxy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/router"
)

// The bounds of copies: none may cost users anything.
const (
	maxMirrorBody = 1 << 20 // bytes of a request that are kept
	maxCopies     = 64      // under way at once
	copyLimit     = 5 * time.Minute
)

// headerMirror marks a copy, so that an agent can know that nobody sees its answer.
const headerMirror = "X-Aviary-Mirror"

// capture is a request of stable's that is to be copied, while it goes by. It belongs to whoever reads the request's body.
type capture struct {
	decision router.Decision // of the copy
	body     bytes.Buffer
	over     bool // sent, or dropped
}

// capture is what keeps x for a copy, or nil if it is not to be copied. Upgraded connections never are.
func (p *Proxy) capture(x *exchange) *capture {
	d, ok := p.router.Mirror(&x.decision, x.asked.Key)
	if !ok || x.in.Header.Get("Upgrade") != "" {
		return nil
	}
	c := &capture{decision: d}
	if x.in.ContentLength > maxMirrorBody {
		c.drop(x, router.MirrorTooLarge)
	}
	return c
}

func (c *capture) drop(x *exchange, why router.MirrorDrop) {
	if !c.over {
		c.over = true
		c.body = bytes.Buffer{}
		x.proxy.router.MirrorDropped(x.agent, why)
	}
}

// take keeps a part of the body.
func (c *capture) take(x *exchange, part []byte) {
	switch {
	case c.over:
	case c.body.Len()+len(part) > maxMirrorBody:
		c.drop(x, router.MirrorTooLarge)
	default:
		c.body.Write(part)
	}
}

// send sends the copy, once stable has the whole request. It does not wait for anything.
func (c *capture) send(x *exchange) {
	if c.over {
		return
	}
	p := x.proxy
	select {
	case p.copies <- struct{}{}:
	default:
		c.drop(x, router.MirrorBusy)
		return
	}
	c.over = true
	// Of the process, not of the client's connection: the client does not wait for the copy.
	ctx, cancel := context.WithTimeout(p.base, copyLimit)
	req := p.copyOf(ctx, x, c.body.Bytes())
	copied := &exchange{proxy: p, in: req, start: time.Now(), agent: x.agent, prefix: x.prefix, decision: c.decision, asked: x.asked}
	go func() {
		defer func() {
			cancel()
			<-p.copies
		}()
		copied.begin(nowhere{})
		defer copied.close()
		p.forward(req, copied)
	}()
}

// copyOf is x's request again, without what is between the client and the proxy alone.
func (p *Proxy) copyOf(ctx context.Context, x *exchange, body []byte) *http.Request {
	req := x.in.Clone(ctx)
	req.Body, req.ContentLength = http.NoBody, 0
	if len(body) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	req.TransferEncoding, req.Trailer = nil, nil
	req.Header[p.names.RequestID] = []string{x.id}
	for _, name := range []string{"Expect", "Trailer"} {
		req.Header.Del(name)
	}
	if cookies := req.Header["Cookie"]; len(cookies) > 0 {
		if kept := p.withoutOwnCookies(cookies); len(kept) > 0 {
			req.Header["Cookie"] = kept
		} else {
			delete(req.Header, "Cookie")
		}
	}
	return req
}

// withoutOwnCookies are Cookie headers without the router's own cookies.
func (p *Proxy) withoutOwnCookies(headers []string) []string {
	var out []string
	for _, h := range headers {
		var kept []string
		for part := range strings.SplitSeq(h, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(part), "=")
			if !slices.Contains([]string{p.names.PinCookie, p.names.KeyCookie}, name) {
				kept = append(kept, strings.TrimSpace(part))
			}
		}
		if len(kept) > 0 {
			out = append(out, strings.Join(kept, "; "))
		}
	}
	return out
}

// nowhere is where the answer to a copy goes.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}
func (nowhere) FlushError() error           { return nil }
