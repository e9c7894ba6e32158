"""Laws, tiny models and scripted engines for tests of your own plug-ins."""
