package main

import (
	"crypto/md5" //nolint:gosec // a choice, no secret
	"encoding/binary"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// reverseProxy is what one would write in an afternoon: the standard library's proxy with a choice by md5. It serves until it
// is ended.
func reverseProxy(listen, stable, canary string) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxIdleConns, transport.DisableCompression = 256, 0, true
	to := func(host string) *url.URL { return &url.URL{Scheme: "http", Host: host} }
	urls := []*url.URL{to(stable), to(canary)}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			sum := md5.Sum([]byte(r.In.Header.Get("X-Conversation-ID"))) //nolint:gosec // a choice, no secret
			i := 0
			if binary.BigEndian.Uint64(sum[:])%100 < 5 {
				i = 1
			}
			r.SetURL(urls[i])
			r.SetXForwarded()
		},
	}
	s := http.Server{Addr: listen, Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	return s.ListenAndServe()
}
