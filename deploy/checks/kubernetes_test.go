package main

import (
	"os"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// The manifests are read into Kubernetes' own types, which refuse a field that there is not, and then say what a cluster asks of
// a good guest: nobody's user, no right, a root that nobody writes, probes, room for one replica to go.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../kubernetes/reconciler.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment apps.Deployment
	var service core.Service
	var budget policy.PodDisruptionBudget
	var network networking.NetworkPolicy
	var config core.ConfigMap
	var account core.ServiceAccount
	into := map[string]any{"Deployment": &deployment, "Service": &service, "PodDisruptionBudget": &budget, "NetworkPolicy": &network,
		"ConfigMap": &config, "ServiceAccount": &account}
	versions := map[string]string{"Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1"}
	for _, doc := range strings.Split(string(text), "\n---\n") {
		var kind meta.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatal(err)
		}
		want := versions[kind.Kind]
		if want == "" {
			want = "v1"
		}
		if into[kind.Kind] == nil || kind.APIVersion != want {
			t.Fatalf("unexpected or second %s of %s", kind.Kind, kind.APIVersion)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), into[kind.Kind]); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
		delete(into, kind.Kind)
	}
	if len(into) > 0 {
		t.Fatalf("missing: %v", into)
	}

	pod := deployment.Spec.Template
	selects := func(what string, s *meta.LabelSelector) {
		t.Helper()
		if selector, err := meta.LabelSelectorAsSelector(s); err != nil || selector.Empty() || !selector.Matches(labels.Set(pod.Labels)) {
			t.Errorf("%s does not select the pods: %v", what, err)
		}
	}
	selects("the deployment", deployment.Spec.Selector)
	selects("the budget", budget.Spec.Selector)
	selects("the network policy", &network.Spec.PodSelector)
	selects("the service", &meta.LabelSelector{MatchLabels: service.Spec.Selector})
	if *deployment.Spec.Replicas != 2 || budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Error("two replicas, of which one may go")
	}
	if s := pod.Spec.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod is somebody: %+v", s)
	}
	c := pod.Spec.Containers[0]
	if s := c.SecurityContext; !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
		t.Errorf("the container has rights: %+v", s)
	}
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for _, p := range service.Spec.Ports {
		if ports[p.TargetPort.StrVal] != p.Port {
			t.Errorf("the service's port %s leads nowhere", p.Name)
		}
	}
	for name, probe := range map[string]*core.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe.HTTPGet.Path != name || probe.HTTPGet.Port.StrVal != "metrics" {
			t.Errorf("%s is asked for at %v", name, probe.HTTPGet)
		}
	}
	if config.Data["reconciler.yaml"] == "" || pod.Spec.ServiceAccountName != account.Name || *pod.Spec.AutomountServiceAccountToken {
		t.Error("settings and account of the pod")
	}
}
