"""The options of each driver, one module each, under the names that Glance gave them."""
