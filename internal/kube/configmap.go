package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// ErrMoved is the error of a write over something that was changed since it was read.
var ErrMoved = errors.New("it was changed in between")

// ConfigMap is one key of a ConfigMap. It is safe for concurrent use.
type ConfigMap struct {
	objects              dynamic.ResourceInterface
	namespace, name, key string
}

// ConfigMap is a key of a ConfigMap. It makes no call.
func (c *Client) ConfigMap(namespace, name, key string) *ConfigMap {
	return &ConfigMap{c.Objects(configMaps, namespace), namespace, name, key}
}

// String is namespace/name and the key.
func (m *ConfigMap) String() string {
	return fmt.Sprintf("configmap %s/%s, key %s", m.namespace, m.name, m.key)
}

// Value is a ConfigMap's key as it was read.
type Value struct {
	Text        string
	Annotations map[string]string // of the whole ConfigMap
	version     string
}

// Get reads the key. Errors: it is not there, or a fault of the call.
func (m *ConfigMap) Get(ctx context.Context) (Value, error) {
	o, err := m.objects.Get(ctx, m.name, metav1.GetOptions{})
	if err != nil {
		return Value{}, Fault(err, "get", "configmaps", m.namespace, m.name)
	}
	text, ok, err := unstructured.NestedString(o.Object, "data", m.key)
	if err != nil || !ok {
		return Value{}, fmt.Errorf("%s is not there", m)
	}
	return Value{Text: text, Annotations: maps.Clone(o.GetAnnotations()), version: o.GetResourceVersion()}, nil
}

// Set replaces the text of a key as it was read. Errors: ErrMoved if anything about the ConfigMap was changed since, or a fault of the call.
func (m *ConfigMap) Set(ctx context.Context, old Value, text string) error {
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": old.version},
		{"op": "replace", "path": "/data/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(m.key), "value": text},
	})
	if err != nil {
		return fmt.Errorf("encode the patch: %w", err)
	}
	_, err = m.objects.Patch(ctx, m.name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: Manager})
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) && !isInvalidObject(err) {
		return ErrMoved
	}
	if err != nil {
		return Fault(err, "patch", "configmaps", m.namespace, m.name)
	}
	return nil
}

// isInvalidObject reports whether the server says what is wrong with the object, rather than that a test failed.
func isInvalidObject(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Details != nil && len(status.Status().Details.Causes) > 0
}

// Annotate sets one annotation of the ConfigMap, whatever else is changed at the same time.
func (m *ConfigMap) Annotate(ctx context.Context, name, value string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{name: value}}})
	if err != nil {
		return fmt.Errorf("encode the patch: %w", err)
	}
	if _, err := m.objects.Patch(ctx, m.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager}); err != nil {
		return Fault(err, "patch", "configmaps", m.namespace, m.name)
	}
	return nil
}
