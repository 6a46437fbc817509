package org.apache.http.entity.mime;

/** Imported by what is generated, and used by operations that take files: there are none. */
public final class MultipartEntityBuilder {
    private MultipartEntityBuilder() {}
}
