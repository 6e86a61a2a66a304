CREATE DATABASE diptych_artifacts;
