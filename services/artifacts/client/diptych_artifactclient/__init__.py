"""`openstack artifact …`, and the library behind it: `diptych_artifactclient.client.Artifacts`."""
